"""Which image goes where: stratified splits that no picture crosses."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from components.errors import UserError


class Removal(NamedTuple):
    """Why an image was taken out: in a word, and as quarantine.csv tells it."""

    kind: Literal["duplicate", "label conflict"]
    reason: str


Removed = dict[int, Removal]  # by row


def stratified_split(
    labels: np.ndarray, classes: Sequence[str], fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Divide positions 0…N−1 at random so that every class is divided in the same proportion.

    `labels` is int (N,) with values below len(classes); `fractions` gives the share of each split besides `train`,
    which takes the rest. Every split gets at least one image of each class, otherwise a UserError names the class and
    the split. Returns ascending positions by split, `train` first.
    """
    members: dict[str, list[np.ndarray]] = {name: [] for name in ("train", *fractions)}
    for label, class_name in enumerate(classes):
        positions = rng.permutation(np.flatnonzero(labels == label))
        counts = {name: max(1, round(fraction * len(positions))) for name, fraction in fractions.items()}
        counts = {"train": len(positions) - sum(counts.values()), **counts}
        if counts["train"] < 1:
            names = tuple(counts)
            absent = names[len(positions)] if len(positions) < len(names) else "train"
            raise UserError(
                f"data.labelled: class {class_name!r} has {len(positions)} usable images, too few: the split "
                f"{absent!r} would hold none. Add images (at least {len(counts)}), lower data.val_fraction and "
                "data.test_fraction, or leave the class out with data.labelled.exclude_classes."
            )
        ends = np.cumsum(list(counts.values()))[:-1]
        for name, part in zip(counts, np.split(positions, ends), strict=True):
            members[name].append(part)
    return {name: np.sort(np.concatenate(parts)) for name, parts in members.items()}


def without_duplicates(
    rows: np.ndarray, sha256: Sequence[str], paths: Sequence[str], class_names: Sequence[str] | None = None
) -> tuple[np.ndarray, Removed]:
    """Keep the first of identical pictures; where `class_names` is given and they disagree, keep none of them.

    `sha256`, `paths` and `class_names` are looked up by row. Returns the remaining rows and the removed ones with
    the reason.
    """
    groups: dict[str, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(sha256[row], []).append(row)
    removed: Removed = {}
    for first, *others in groups.values():
        contrary = next((r for r in others if class_names and class_names[r] != class_names[first]), None)
        if class_names and contrary is not None:
            names = {row: class_names[row] for row in (first, *others)}
            for row, name in names.items():
                other = first if names[first] != name else contrary
                reason = f"labelled {name!r}, but the same picture is {names[other]!r} at {paths[other]}"
                removed[row] = Removal("label conflict", reason)
        else:
            removed.update(dict.fromkeys(others, Removal("duplicate", f"duplicate of {paths[first]}")))
    return _without(rows, removed), removed


def without_shared(
    rows: np.ndarray, others: Mapping[str, np.ndarray], sha256: Sequence[str], paths: Sequence[str]
) -> tuple[np.ndarray, Removed]:
    """Take out the pictures that are also in one of the other splits. Returns remaining rows and the removed ones."""
    elsewhere = {sha256[row]: (name, row) for name, other in others.items() for row in other.tolist()}
    removed: Removed = {}
    for row in rows.tolist():
        if sha256[row] in elsewhere:
            name, twin = elsewhere[sha256[row]]
            removed[row] = Removal("duplicate", f"also in the split {name!r}, as {paths[twin]}")
    return _without(rows, removed), removed


def _without(rows: np.ndarray, removed: Removed) -> np.ndarray:
    return rows[~np.isin(rows, list(removed))]
