"""All variants side by side, one panel a number."""

from collections.abc import Mapping, Set
from pathlib import Path

from components.evaluation import figure_style as style

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILION, style.YELLOW, style.BLACK)


def comparison_figure(
    columns: Mapping[str, Mapping[str, float | None]], higher_is_better: Set[str], path: Path | str
) -> None:
    """Bars by variant for each column {title: {variant: number}}; an arrow says which way is better.

    Axes of numbers between 0.5 and 1 that are better when higher begin where they can tell the variants apart.
    """
    variants = list(next(iter(columns.values())))
    across = 5
    rows = -(-len(columns) // across)
    with style.figure(path, 2.3 * across, (1.1 + 0.28 * len(variants)) * rows) as canvas:
        grid = canvas.subplots(rows, across, squeeze=False).ravel()
        for unused in grid[len(columns) :]:
            unused.set_visible(False)
        for i, ((title, values), axes) in enumerate(zip(columns.items(), grid, strict=False)):
            numbers = [values[name] for name in variants]
            known = [n for n in numbers if n is not None]
            low = min(known, default=0.0)
            start = max(0.0, low - 2 * (1 - low)) if title in higher_is_better and 0.5 < low <= max(known) <= 1 else 0.0
            end = 1.0 if start else max(known, default=1.0) or 1.0
            for y, number in enumerate(numbers):
                if number is None:
                    axes.text(start, y, " none", va="center", color=style.GREY)
                else:
                    axes.barh(y, number - start, left=start, color=COLOURS[y % len(COLOURS)], height=0.7)
                    axes.text(number, y, f" {number:.3g}", va="center", fontsize=8)
            axes.set_title(f"{title} {'↑' if title in higher_is_better else '↓'}", fontsize=9)
            axes.set_yticks(range(len(variants)), variants if i % across == 0 else [""] * len(variants))
            axes.set_xlim(start, start + (end - start) * 1.3)
            axes.invert_yaxis()
            axes.grid(visible=False)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
