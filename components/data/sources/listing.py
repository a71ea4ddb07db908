"""What a source of images holds: places, labels and class names, known before any image is decoded."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

import numpy as np

from components.data.config import Source
from components.errors import UserError


@dataclass(frozen=True)
class Listing:
    """What a source holds, known without decoding an image."""

    name: str
    paths: Sequence[str]  # (N,) where each image lies
    labels: np.ndarray | None  # int64 (N,), −1 where one is missing; None where the source has no labels
    classes: tuple[str, ...]  # label i means classes[i]; the names are unique
    read: Callable[[np.ndarray], Iterator[bytes | Path | np.ndarray]]  # ascending rows → their files or pixels
    others: Mapping[str, int] = field(default_factory=dict)  # files that are no images, by suffix

    @property
    def has_labels(self) -> bool:
        """Whether at least one image has a label."""
        return self.labels is not None and bool((self.labels >= 0).any())

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the classes that have images, in order of their id."""
        if self.labels is None:
            return ()
        return tuple(self.classes[i] for i in np.unique(self.labels[self.labels >= 0]))

    def small_classes(self, least: int) -> dict[str, int]:
        """Classes of fewer images than `least`, and how many they have."""
        if self.labels is None:
            return {}
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True) if 0 < count < least}

    def class_names(self, rows: np.ndarray) -> list[str]:
        """Class name of each row, "" where it has none."""
        if self.labels is None:
            return [""] * len(rows)
        return [self.classes[label] if label >= 0 else "" for label in self.labels[rows]]


def choose_rows(listing: Listing, source: Source, key: str, rng: np.random.Generator) -> np.ndarray:
    """Ascending rows that remain after `exclude_classes`, `min_class_images` and `limit` (a random choice)."""
    require_known_classes(source.exclude_classes, listing.present, f"{key}.exclude_classes")
    rows = np.arange(len(listing.paths))
    if listing.labels is not None:
        names = {*source.exclude_classes, *listing.small_classes(source.min_class_images)}
        excluded = [listing.classes.index(name) for name in names]
        rows = rows[~np.isin(listing.labels, excluded)]
    if source.limit is not None and source.limit < len(rows):
        rows = np.sort(rng.choice(rows, size=source.limit, replace=False))
    return rows


def require_known_classes(names: Sequence[str], known: Sequence[str], key: str) -> None:
    """Raise a UserError that lists the known classes where one of `names` is none of them."""
    for name in names:
        if name not in known:
            raise UserError(
                f"{key}: no class {name!r}. "
                + (f"The classes are: {', '.join(known)}." if known else "The source has no labels.")
            )


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Append the id to names that occur more than once (ImageNet has two cranes): classes are matched by name.

    Names are given in Unicode's form NFC.
    """
    names = [normalize("NFC", name) for name in names]
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))
