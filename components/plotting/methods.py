"""Many methods side by side: what they trade for what, and each of their numbers with its spread."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.plotting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# a colour and a marker a kind, so that either alone tells them apart
KINDS = {
    "contrastive": (style.GREEN, "o"),
    "generative": (style.ORANGE, "s"),
    "hybrid": (style.BLUE, "D"),
    "adversarial": (style.VERMILION, "^"),
    "predictive": (style.PURPLE, "v"),
    "clustering": (style.SKY, "P"),
}
OTHER = (style.GREY, "X")
SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)  # what the left panel's axes name
LEAST, MOST = 0.01, 0.999  # their ends: 0 and 1 lie infinitely far away on them


@dataclass(frozen=True)
class Panel:
    """One number: method → (mean, standard deviation over seeds), of those that have it."""

    title: str
    values: Mapping[str, tuple[float, float]]
    higher_is_better: bool


def methods_figure(kinds: Mapping[str, str], panels: Sequence[Panel], path: Path | str) -> None:
    """Left: the first panel's number against the next of which more is better, both shares of one; a method's number is
    that of its row.
    Right: a row a method, in the order of `kinds` {method: kind}, a column a panel. Bars are standard deviations over
    seeds, a dotted line is the best."""
    row = 0.24
    height = max(4.4, 1.1 + row * len(kinds))
    widths = [4.6, *[1.9] * len(panels)]
    with style.figure(path, sum(widths) + 1.6, height) as canvas:
        axes = canvas.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        _trade(axes[0], kinds, panels[0], next((p for p in panels[1:] if p.higher_is_better), None))
        for place, panel in zip(axes[1:], panels, strict=True):
            _column(place, kinds, panel)
        axes[1].set_yticks(range(len(kinds)), [f"{name}  {i}" for i, name in enumerate(kinds, 1)])
        legend = axes[0].get_legend_handles_labels()
        canvas.legend(*legend, loc="outside lower left", ncols=len(KINDS))


def _trade(axes: "Axes", kinds: Mapping[str, str], across: Panel, up: Panel | None) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    if up is None:
        axes.set_visible(False)
        return
    numbers = {name: i for i, name in enumerate(kinds, 1)}
    for kind in dict.fromkeys(kinds.values()):
        colour, marker = KINDS.get(kind, OTHER)
        names = [n for n, k in kinds.items() if k == kind and n in across.values and n in up.values]
        if not names:
            continue
        (x, dx), (y, dy) = (_shares([panel.values[n] for n in names]) for panel in (across, up))
        axes.errorbar(x, y, dy, dx, fmt=marker, color=colour, markersize=6, elinewidth=0.7, alpha=0.85, label=kind)
        for name, place in zip(names, zip(x, y, strict=True), strict=True):
            axes.annotate(str(numbers[name]), place, (4, 4), textcoords="offset points", fontsize=7, color=colour)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("logit")  # most methods are close to 1: what is told apart there are errors
        axis.set_major_locator(FixedLocator(SHARES))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
        axis.set_tick_params(labelsize=7)
    axes.set_xlabel(f"{across.title} →")
    axes.set_ylabel(f"{up.title} →")
    axes.set_title("Discriminative against robust")


def _shares(values: Sequence[tuple[float, float]]) -> tuple[list[float], tuple[list[float], list[float]]]:
    """Means, and how far down and up their bars reach, within what a logit axis can show."""
    means = [min(max(mean, LEAST), MOST) for mean, _ in values]
    down = [min(deviation, mean - LEAST) for mean, (_, deviation) in zip(means, values, strict=True)]
    up = [min(deviation, MOST - mean) for mean, (_, deviation) in zip(means, values, strict=True)]
    return means, (down, up)


def _column(axes: "Axes", kinds: Mapping[str, str], panel: Panel) -> None:
    best = (max if panel.higher_is_better else min)(mean for mean, _ in panel.values.values())
    for y, (name, kind) in enumerate(kinds.items()):
        axes.axhline(y, color=style.GREY, linewidth=0.4, alpha=0.4)
        if name in panel.values:
            mean, deviation = panel.values[name]
            colour, marker = KINDS.get(kind, OTHER)
            axes.errorbar(mean, y, xerr=deviation, fmt=marker, color=colour, markersize=5, elinewidth=1.2)
    axes.axvline(best, color=style.GREY, linewidth=0.8, linestyle=":")
    axes.set_title(textwrap.fill(f"{panel.title} {'↑' if panel.higher_is_better else '↓'}", 18), fontsize=9)
    axes.set_yticks(range(len(kinds)), [""] * len(kinds))
    axes.set_ylim(len(kinds) - 0.5, -0.7)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(visible=False)
