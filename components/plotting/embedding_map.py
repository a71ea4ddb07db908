"""The map of a variant's features: test images by class, OOD sets in grey, each with its own mark."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.evaluation.features.embedding_map import Mapped
from components.plotting import style

MARKS = ("x", "^", "s", "+", "D", "v", "*")
GREYS = ("#555555", "#9A9A9A", "#C4C4C4")
NAMED_CLASSES = 20  # more names would hide the points


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
        for number, name in enumerate(classes if len(classes) <= NAMED_CLASSES else ()):
            members = positions[labels[rows] == number]  # (n, 2)
            if len(members):
                # on a point of its class: the mean of scattered groups would lie between them
                middle = members[np.linalg.norm(members - np.median(members, axis=0), axis=1).argmin()]
                outline = withStroke(linewidth=3, foreground="white")
                axes.annotate(
                    name, middle, ha="center", va="center", weight="bold", fontsize=11, path_effects=[outline]
                )
        axes.set_title(title)
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.spines[:].set_visible(False)
        if sets:
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, title="out of distribution", markerscale=1.5
            )
