"""All variants side by side: one panel a number, one line a variant."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from components.plotting import style


def comparison_figure(
    columns: Mapping[str, Mapping[str, float | None]], higher_is_better: Set[str], path: Path | str
) -> None:
    """A dot a variant for each column {title: {variant: number}}; an arrow says which way is better.

    Dots, not bars: the axes do not begin at zero, so that they can tell close variants apart. No axis is narrower than
    a twentieth of its numbers, so that noise does not look like a difference.
    """
    variants = list(next(iter(columns.values())))
    colours = style.variant_colours(variants)
    across = 5 if len(columns) <= 10 else 6
    rows = -(-len(columns) // across)
    with style.figure(path, 2.4 * across, (1.0 + 0.28 * len(variants)) * rows) as canvas:
        grid = canvas.subplots(rows, across, squeeze=False).ravel()
        for unused in grid[len(columns) :]:
            unused.set_visible(False)
        for i, ((title, values), axes) in enumerate(zip(columns.items(), grid, strict=False)):
            known = [n for n in values.values() if n is not None] or [0.0]
            middle, span = (
                (min(known) + max(known)) / 2,
                max(max(known) - min(known), 0.05 * max(map(abs, known)), 1e-9),
            )
            for y, name in enumerate(variants):
                number, colour = values[name], colours[name]
                axes.axhline(y, color=style.GREY, linewidth=0.5, alpha=0.5)
                if number is None:
                    axes.text(middle, y, "none", va="center", ha="center", color=style.GREY, backgroundcolor="white")
                else:
                    axes.plot(number, y, "o", color=colour, markersize=7)
                    shown = f"{number:.3f}" if abs(number) < 10 else f"{number:.0f}"
                    axes.annotate(shown, (number, y), (0, 6), textcoords="offset points", ha="center", fontsize=8)
            axes.set_title(f"{title} {'↑' if title in higher_is_better else '↓'}", fontsize=9)
            axes.set_yticks(range(len(variants)), variants if i % across == 0 else [""] * len(variants))
            axes.set_ylim(len(variants) - 0.5, -0.7)
            axes.set_xlim(middle - 0.75 * span, middle + 0.75 * span)
            axes.locator_params(axis="x", nbins=3)
            axes.tick_params(axis="x", labelsize=7)
            axes.grid(visible=False)


def variant_lines(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    x_label: str,
    path: Path | str,
    percent: bool = False,
) -> None:
    """One line a variant through its points (x, y); a variant without points keeps its colour and is left out."""
    from matplotlib.ticker import PercentFormatter

    with style.figure(path, 4.6, 3.2) as canvas:
        axes = canvas.add_subplot()
        colours = style.variant_colours(lines)
        for name, points in lines.items():
            if points:
                marker = "o" if len(points) < 25 else None
                axes.plot(*zip(*points, strict=True), color=colours[name], label=name, marker=marker, markersize=4)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend()


def layer_lines(layers: Mapping[str, Sequence[tuple[str, float]]], title: str, path: Path | str) -> None:
    """One line a variant through what a probe reads after each layer: its (part, accuracy) in order; part is `encoder`
    or `decoder`, whose layers are dashed."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with style.figure(path, 4.6, 3.2) as canvas:
        axes = canvas.add_subplot()
        colours = style.variant_colours(layers)
        for name, points in layers.items():
            encoder = sum(part == "encoder" for part, _ in points)
            numbers, accuracies = list(range(1, len(points) + 1)), [accuracy for _, accuracy in points]
            look: dict[str, Any] = {"color": colours[name], "marker": "o", "markersize": 4}
            axes.plot(numbers[:encoder], accuracies[:encoder], label=name if encoder else None, **look)
            if encoder < len(points):
                start = max(encoder - 1, 0)
                axes.plot(numbers[start:], accuracies[start:], linestyle="--", label=f"{name}, decoder", **look)
        axes.set_title(title)
        axes.set_xlabel("block of the network, from the input on")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend()
