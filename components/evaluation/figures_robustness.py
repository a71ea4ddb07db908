"""Figure of the robustness: what corruptions cost."""

from collections.abc import Mapping
from pathlib import Path

from components.evaluation import figure_style as style
from components.evaluation.corruptions import SEVERITIES

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.PURPLE, style.SKY)


def accuracy_by_severity(metrics: Mapping[str, Mapping[str, float]], path: Path | str) -> None:
    """One panel a corruption: test accuracy against severity, 0 being clean images; a line for each name in `metrics`.

    `metrics`: name → what `measure_robustness` returned. All were measured on the same corruptions.
    """
    corruptions = [key.split("/")[0] for key in next(iter(metrics.values())) if key.endswith("/mean/accuracy")]
    with style.figure(path, 2.1 * len(corruptions) + 0.6, 2.7 + 0.17 * len(metrics)) as canvas:
        grid = canvas.subplots(1, len(corruptions), sharey=True, squeeze=False)[0]
        for axes, corruption in zip(grid, corruptions, strict=True):
            for index, (name, numbers) in enumerate(metrics.items()):
                accuracies = [numbers[f"{corruption}/{severity}/accuracy"] for severity in SEVERITIES]
                axes.plot(
                    [0, *SEVERITIES],
                    [numbers["clean/accuracy"], *accuracies],
                    color=COLOURS[index % len(COLOURS)],
                    marker="o",
                    markersize=4,
                    label=f"{name}: {numbers[f'{corruption}/mean/accuracy']:.1%}",
                )
            axes.set_title(corruption.replace("_", " "))
            axes.set_xticks([0, *SEVERITIES], ["clean", *map(str, SEVERITIES)])
            axes.set_xlabel("severity")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), title="mean over severities", title_fontsize=8)
        grid[0].set_ylabel("test accuracy")
