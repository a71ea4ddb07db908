"""Figure of the robustness: what corruptions cost, and whether the model notices."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.plotting import style

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.PURPLE, style.SKY)
PANELS = {"accuracy": "Test accuracy", "ece": "Calibration error", "flagged": "Flagged as OOD"}


def robustness_by_severity(
    metrics: Mapping[str, float], corruptions: Sequence[str], severities: Sequence[int], path: Path | str
) -> None:
    """A panel a measure, a line a corruption, against severity; 0 are clean images.

    `metrics`: what `measure_robustness` returned for these corruptions and severities.
    """
    levels = sorted(severities)
    with style.figure(path, 3.4 * len(PANELS), 3.4) as canvas:
        grid = canvas.subplots(1, len(PANELS))
        for (measure, title), axes in zip(PANELS.items(), grid, strict=True):
            for index, corruption in enumerate(corruptions):
                values = [metrics[f"{corruption}/{level}/{measure}"] for level in levels]
                axes.plot(
                    [0, *levels],
                    [metrics[f"clean/{measure}"], *values],
                    color=COLOURS[index % len(COLOURS)],
                    marker="o",
                    markersize=4,
                    label=corruption.replace("_", " "),
                )
            axes.set_title(title)
            axes.set_xticks([0, *levels], ["clean", *map(str, levels)])
            axes.set_xlabel("severity")
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]) if measure != "accuracy" else None)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        canvas.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(corruptions))
