"""Figures of the detectors: ROC curves and score histograms, one panel an OOD set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.evaluation.config import EXPORTED
from components.evaluation.ood import registry
from components.evaluation.ood.base import Dashes, Family
from components.evaluation.ood.metrics import auroc, roc_curve
from components.plotting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# a detector keeps its line in every figure; its dashes tell what it looks at
DASHES: dict[Family, Dashes] = {"features": "solid", "logits": "dashed", "likelihood": "dotted", "several": "dashdot"}
PANELS_A_ROW = 3
LEGEND_COLUMNS = 2


@dataclass(frozen=True)
class Line:
    """How a detector is drawn."""

    colour: str
    dashes: Dashes


def lines_of(names: Sequence[str]) -> dict[str, Line]:
    """The lines of these detectors, in the registry's order, those that it does not know last.

    A line is as declared. A detector that declares no colour, or has no declaration, gets one that no other with its
    dashes has, while there is one.
    """
    declared = registry.load_all()
    dashes = {name: detector.dashes or DASHES[detector.family] for name, detector in declared.items()}
    lines = {n: Line(style.NAMED[d.colour], dashes[n]) for n, d in declared.items() if d.colour}
    for name in [*declared, *names]:
        if name not in lines:
            candidates = [Line(colour, dashes.get(name, "dashdot")) for colour in style.NAMED.values()]
            free = (line for line in candidates if line not in lines.values())
            lines[name] = next(free, candidates[len(lines) % len(candidates)])
    return {name: lines[name] for name in dict.fromkeys([*declared, *names]) if name in names}


def roc_curves(scores: Mapping[str, Mapping[str, np.ndarray]], distances: Mapping[str, str], path: Path | str) -> None:
    """One panel an OOD set, one line a detector, its AUROC in the legend.

    `scores`: detector → `test` and each OOD set → (N,); `distances`: OOD set → near or far.
    """
    rows, lines = -(-len(scores) // LEGEND_COLUMNS), lines_of(list(scores))
    with style.figure(path, *_size(len(distances), 3.6 + 0.14 * rows)) as canvas:
        for name, axes in zip(distances, _panels(canvas, len(distances)), strict=True):
            for detector in sorted(scores, key=lambda key: key == EXPORTED):  # which is drawn last, on top
                axes.plot(
                    *roc_curve(scores[detector]["test"], scores[detector][name]),
                    color=lines[detector].colour,
                    linestyle=lines[detector].dashes,
                    linewidth=2.4 if detector == EXPORTED else 1.5,
                    label=f"{auroc(scores[detector]['test'], scores[detector][name]):.3f}  {detector}",
                )
            axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
            axes.set_title(f"{name} ({distances[name]})")
            axes.set_xlabel("in-distribution images flagged")
            axes.set_ylabel("OOD images flagged")
            axes.legend(
                loc="upper center",
                bbox_to_anchor=(0.45, -0.16),
                ncols=LEGEND_COLUMNS,
                fontsize=7,
                handlelength=2.6,
                columnspacing=1,
                title="AUROC",
                title_fontsize=8,
            )


def auroc_intervals(metrics: Mapping[str, float], distances: Mapping[str, str], path: Path | str) -> None:
    """One panel an OOD set, one row a detector: its AUROC with the 95 % bootstrap interval.

    `metrics`: those of run_detectors; `distances`: OOD set → near or far.
    """
    lines = lines_of([key.removesuffix("/threshold") for key in metrics if key.endswith("/threshold")])
    with style.figure(path, *_size(len(distances), 1.0 + 0.2 * len(lines))) as canvas:
        for name, axes in zip(distances, _panels(canvas, len(distances)), strict=True):
            for row, (detector, line) in enumerate(lines.items()):
                low, value, high = (metrics[f"{detector}/{name}/auroc{end}"] for end in ("_low", "", "_high"))
                axes.hlines(row, low, high, color=line.colour, linewidth=2)
                axes.plot(value, row, marker="o", markersize=4, color=line.colour)
            axes.axvline(0.5, color="#BBBBBB", linewidth=0.8)  # chance
            axes.set_yticks(range(len(lines)), list(lines), fontsize=7)
            axes.set(xlim=(-0.02, 1.02), ylim=(len(lines) - 0.5, -0.5))
            axes.set_title(f"{name} ({distances[name]})")
            axes.set_xlabel("AUROC, 95 % interval")


def score_histograms(
    scores: Mapping[str, np.ndarray], threshold: float, distances: Mapping[str, str], path: Path | str
) -> None:
    """One detector's scores of the test images against each OOD set, with the threshold and the shares above it.

    `scores`: `test` and each OOD set → (N,); `distances`: OOD set → near or far.
    """
    test = scores["test"]
    with style.figure(path, *_size(len(distances), 3.0)) as canvas:
        for name, axes in zip(distances, _panels(canvas, len(distances)), strict=True):
            other = scores[name]
            both = np.concatenate([test, other])
            # far-OOD scores can be tens of times the usual ones, which would squeeze all else into one bar
            logarithmic = both.min() > 0 and np.quantile(both, 0.99) > 8 * np.quantile(test, 0.9)
            if logarithmic:
                axes.set_xscale("log")
            bins = (np.geomspace if logarithmic else np.linspace)(both.min(), both.max(), 41).tolist()
            for values, colour, label in ((test, style.BLUE, "test"), (other, style.VERMILION, name)):
                flagged = float((values > threshold).mean())
                weights = np.full(len(values), 1 / len(values))
                axes.hist(
                    values, bins, weights=weights, color=colour, alpha=0.6, label=f"{label}: {flagged:.1%} flagged"
                )
            axes.axvline(threshold, color=style.BLACK, linestyle="--", linewidth=1.2, label="threshold")
            axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
            axes.set_title(f"{name} ({distances[name]})")
            axes.set_xlabel("score")
            axes.set_ylabel("share of images")
            axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")


def _size(panels: int, height: float) -> tuple[float, float]:
    columns = min(panels, PANELS_A_ROW)
    return 3.6 * columns + 0.4, height * -(-panels // columns) + 0.3


def _panels(canvas: "Figure", panels: int) -> Sequence["Axes"]:
    columns = min(panels, PANELS_A_ROW)
    grid = canvas.subplots(-(-panels // columns), columns, squeeze=False).ravel()
    for unused in grid[panels:]:
        unused.set_visible(False)
    return list(grid[:panels])
