"""What each detector gets most wrong: OOD images that look most normal to it, test images that look least so."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.files import atomic_file

COUNT = 8  # images a detector and kind
EXACT, SHRUNK = 48, 80  # pixels: a picture up to the one is kept as it is, a larger one shrunk to the other


@dataclass(frozen=True)
class HardExample:
    """An image near the wrong end of a detector's ranking."""

    detector: str
    set: str  # `test` or the name of an OOD set
    index: int  # row in its split
    score: float
    flagged: bool  # whether the score is above the detector's threshold; right for an OOD image, wrong for a test image


def hard_examples(
    scores: Mapping[str, Mapping[str, np.ndarray]], thresholds: Mapping[str, float], count: int = COUNT
) -> list[HardExample]:
    """Of each detector the `count` OOD images with the lowest scores (over all sets), then the `count` test images with
    the highest, the worst first; equal scores in the order of the sets.

    `scores`: detector → `test`, each OOD set (and `val`, which is left out) → (N,).
    """
    found = []
    for detector, of_set in scores.items():
        ood = [name for name in of_set if name not in ("val", "test")]
        for sets, sign in ((ood, 1), (["test"], -1)):
            values = np.concatenate([of_set[name] for name in sets])
            ends = np.cumsum([len(of_set[name]) for name in sets])
            for place in np.argsort(sign * values, kind="stable")[:count]:
                number = int(np.searchsorted(ends, place, side="right"))
                index, score = int(place - ends[number]) + len(of_set[sets[number]]), float(values[place])
                found.append(HardExample(detector, sets[number], index, score, score > thresholds[detector]))
    return found


def write_hard_examples(
    path: Path | str,
    found: Sequence[HardExample],
    image: Callable[[str, int], np.ndarray],
    class_name: Callable[[str, int], str],
    read_as: Callable[[str, int], str],
) -> None:
    """Write a Parquet file, a row an image: what is in HardExample, `class_name` ("" where it has none), `read_as` (the
    class that the probe takes it for), `form` and `picture` (what `encoded` returns).

    The three functions take a set's name and a row of it; `image` returns uint8 (H, W, C).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for hard in found:
        form, picture = encoded(image(hard.set, hard.index))
        told = {"class_name": class_name(hard.set, hard.index), "read_as": read_as(hard.set, hard.index)}
        rows.append({**vars(hard), **told, "form": form, "picture": picture})
    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def encoded(image: np.ndarray) -> tuple[str, bytes]:
    """An image uint8 (H, W, C) as a picture for a page: ("png", bytes), exact; if large, ("jpeg", bytes), shrunk."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    exact = max(picture.size) <= EXACT
    if not exact:
        picture.thumbnail((SHRUNK, SHRUNK))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if exact else "JPEG", **({"optimize": True} if exact else {"quality": 85}))
    return "png" if exact else "jpeg", buffer.getvalue()
