"""The map of a variant's features: test images by class, OOD sets in grey, each with its own mark."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.evaluation.features.embedding_map import Mapped
from components.plotting import style

if TYPE_CHECKING:
    from matplotlib.text import Annotation

MARKS = ("x", "^", "s", "+", "D", "v", "*")
GREYS = ("#555555", "#9A9A9A", "#C4C4C4")
NAMED_CLASSES = 20  # more names would hide the points
ROUNDS = 500  # of moving names apart; a figure of 20 takes some 20


def map_figure(
    places: Mapping[str, Mapped], labels: np.ndarray, classes: Sequence[str], title: str, path: Path | str
) -> None:
    """Draw what `embedding_map` found. `labels` (N,) are those of the whole test split, numbers into `classes`."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba_array
    from matplotlib.patheffects import withStroke

    if len(classes) <= len(style.COLOURS):
        colours = to_rgba_array(style.COLOURS)  # (K, 4)
    else:
        colours = colormaps["tab20" if len(classes) <= 20 else "hsv"](np.linspace(0, 1, len(classes), endpoint=False))
    with style.figure(path, 4.4, 4.9) as canvas:
        axes = canvas.add_subplot()
        sets = [name for name in places if name != "test"]
        for i, name in enumerate(sets):
            found = places[name].positions
            axes.scatter(
                found[:, 0],
                found[:, 1],
                s=14,
                marker=MARKS[i % len(MARKS)],
                color=GREYS[i % len(GREYS)],
                linewidths=0.8,
                label=name,
            )
        rows, positions = places["test"]
        axes.scatter(positions[:, 0], positions[:, 1], s=12, color=colours[labels[rows]], linewidths=0)
        names = []
        for number, name in enumerate(classes if len(classes) <= NAMED_CLASSES else ()):
            members = positions[labels[rows] == number]  # (n, 2)
            if len(members):
                # on a point of its class: the mean of scattered groups would lie between them
                middle = members[np.linalg.norm(members - np.median(members, axis=0), axis=1).argmin()]
                outline = withStroke(linewidth=3, foreground="white")
                names.append(
                    axes.annotate(
                        name,
                        middle,
                        xytext=(0, 0),
                        textcoords="offset points",
                        ha="center",
                        va="center",
                        weight="bold",
                        fontsize=11,
                        path_effects=[outline],
                    )
                )
        axes.set_title(title)
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.spines[:].set_visible(False)
        if sets:
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, title="out of distribution", markerscale=1.5
            )
        move_apart(names)


def move_apart(names: Sequence["Annotation"]) -> None:
    """Move names, of one figure, that cover each other, by as little as it takes."""
    if not names:
        return
    figure = names[0].get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # only then does it know where the names stand
    boxes = np.array([name.get_window_extent().extents for name in names])  # (n, 4), pixels: left, bottom, right, top
    moved = np.zeros((len(names), 2))
    for _ in range(ROUNDS):
        overlapping = False
        for i, j in combinations(range(len(names)), 2):
            here, there = (boxes[k] + np.tile(moved[k], 2) for k in (i, j))
            overlap = np.minimum(here[2:], there[2:]) - np.maximum(here[:2], there[:2])  # (2,)
            if (overlap > 0).all():
                overlapping = True
                axis = int(overlap.argmin())
                order = 1 if (here + np.roll(here, 2))[axis] <= (there + np.roll(there, 2))[axis] else -1
                push = order * (overlap[axis] / 2 + 0.5)
                moved[i, axis] -= push
                moved[j, axis] += push
        if not overlapping:
            break
    for name, pixels in zip(names, moved, strict=True):
        name.set_position(tuple(pixels * 72 / figure.dpi))
