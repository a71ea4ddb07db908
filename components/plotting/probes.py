"""Figures of the probes: confusion matrix, reliability diagram, few-label curve, layer by layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.evaluation.probes.calibration import Reliability
from components.evaluation.probes.layer_probes import LayerAccuracy
from components.plotting import style

MOST_ANNOTATED_CLASSES = 20


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], path: Path | str) -> None:
    """Counts `confusion` (K, K), row = true class; shaded by the share of the row."""
    count = len(classes)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)  # (K, K)
    side = float(np.clip(0.42 * count, 4, 12))
    with style.figure(path, side + 1.4, side + 0.6) as canvas:
        axes = canvas.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set_title(f"Linear probe on test: {confusion.trace() / max(confusion.sum(), 1):.1%} right")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        size = 8 if count <= MOST_ANNOTATED_CLASSES else 5
        slanted = max(len(name) for name in classes) > 2
        axes.set_xticks(range(count), classes, rotation=90 if slanted else 0, fontsize=size)
        axes.set_yticks(range(count), classes, fontsize=size)
        if count <= MOST_ANNOTATED_CLASSES:
            for row, column in np.argwhere(confusion > 0):
                dark = shares[row, column] > 0.5
                colour = "white" if dark else "#333333"
                axes.text(column, row, confusion[row, column], ha="center", va="center", fontsize=7, color=colour)
        canvas.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)


def reliability_diagram(before: Reliability, after: Reliability, path: Path | str) -> None:
    """Accuracy against confidence, before and after temperature scaling, with the number of predictions below."""
    with style.figure(path, 7.2, 4.4) as canvas:
        grid = canvas.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
        for column, (title, bins, colour) in enumerate(
            (("As trained", before, style.ORANGE), ("Temperature scaled", after, style.BLUE))
        ):
            top, bottom = grid[0, column], grid[1, column]
            filled = bins.counts > 0
            left, width = bins.edges[:-1][filled], np.diff(bins.edges)[filled]
            accuracy, confidence = bins.accuracy[filled], bins.confidence[filled]
            top.bar(left, accuracy, width, align="edge", color=colour, alpha=0.85, edgecolor="white", label="accuracy")
            top.vlines(confidence, accuracy, confidence, color="#333333", linewidth=1.2, label="gap to confidence")
            top.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", linewidth=1, label="perfect calibration")
            top.set_title(f"{title}: ECE {bins.expected_calibration_error:.2%}")
            top.set(xlim=(0, 1), ylim=(0, 1.02))
            bottom.bar(left, bins.counts[filled], width, align="edge", color=style.GREY, edgecolor="white")
            bottom.set_yscale("log")
            bottom.set_xlabel("confidence")
        grid[0, 0].set_ylabel("accuracy")
        grid[1, 0].set_ylabel("predictions")
        grid[0, 0].legend(loc="upper left")


def few_label_curve(
    curves: Mapping[str, Mapping[int, np.ndarray]], all_labels: Mapping[str, float], path: Path | str
) -> None:
    """Test accuracy against labels a class, mean ± standard deviation over draws; a line for each name in `curves`.

    `curves`: name → labels a class → accuracy of each draw; `all_labels`: name → accuracy with every training label.
    """
    shots = sorted({count for curve in curves.values() for count in curve})
    position = {count: index for index, count in enumerate(shots)}
    with style.figure(path, 5.2, 3.6) as canvas:
        axes = canvas.add_subplot()
        for index, (name, curve) in enumerate(curves.items()):
            colour = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.PURPLE, style.SKY)[index % 6]
            dodge = 0.06 * (index - (len(curves) - 1) / 2)  # keeps error bars apart
            x = [position[count] + dodge for count in sorted(curve)]
            means = np.array([curve[count].mean() for count in sorted(curve)])
            stds = np.array([curve[count].std(ddof=1) if len(curve[count]) > 1 else 0.0 for count in sorted(curve)])
            axes.errorbar(x, means, stds, color=colour, marker="o", markersize=5, linewidth=1.8, capsize=3, label=name)
            if name in all_labels:
                last = len(shots) + dodge
                axes.plot([*x[-1:], last], [*means[-1:], all_labels[name]], color=colour, linestyle=":")
                axes.plot(last, all_labels[name], color=colour, marker="D", markersize=5)
        axes.set_xticks(range(len(shots) + 1), [*map(str, shots), "all"])
        axes.set_xlabel("labels a class")
        axes.set_ylabel("test accuracy")
        axes.set_title("Linear probe on few labels")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="lower right")


def layer_curve(layers: Sequence[LayerAccuracy], path: Path | str) -> None:
    """Test accuracy of the linear and the k-NN probe after every block; the decoder's blocks are shaded."""
    numbers = [layer.layer for layer in layers]
    with style.figure(path, 5.2, 3.6) as canvas:
        axes = canvas.add_subplot()
        for name, colour, values in (
            ("linear probe", style.BLUE, [layer.linear_accuracy for layer in layers]),
            ("k-NN", style.ORANGE, [layer.knn_accuracy for layer in layers]),
        ):
            axes.plot(numbers, values, color=colour, marker="o", markersize=5, linewidth=1.8, label=name)
        if decoder := [layer.layer for layer in layers if layer.part == "decoder"]:
            ends = decoder[0] - 0.5, decoder[-1] + 0.5
            axes.axvspan(*ends, color=style.GREY, alpha=0.15, linewidth=0, label="decoder")
        axes.set_xticks(numbers)
        axes.set_xlabel("block, from the input on")
        axes.set_ylabel("test accuracy")
        axes.set_title("Probes on the features after every block")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="best")
