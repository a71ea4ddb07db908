"""Figures of a training run: its curves, and rows of images that the decoder drew."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.plotting import style

PANELS = (
    # title, {logged name: (label, colour)}
    (
        "Likelihood, nats a token",
        {
            "nll_nats_per_token": ("train (augmented)", style.BLUE),
            "val/nll_nats_per_token": ("validation (clean)", style.ORANGE),
        },
    ),
    (
        "Generative loss",
        {
            "generative_loss": ("train (augmented)", style.BLUE),
            "val/generative_loss": ("validation (clean)", style.ORANGE),
        },
    ),
    ("Contrastive loss", {"contrastive_loss": ("train", style.BLUE)}),
    ("CRD loss", {"crd_loss": ("train", style.BLUE)}),
    ("Soft targets' loss", {"kd_loss": ("train", style.BLUE)}),
    ("Feature regression's loss", {"regression_loss": ("train", style.BLUE)}),
    ("ClusterFit's loss", {"clusterfit_loss": ("train", style.BLUE)}),
    ("k-NN accuracy on validation", {"val/knn_accuracy": ("", style.ORANGE)}),
    (
        "Gradient norm on the encoder",
        {
            "gradient_norm/generative": ("generative", style.BLUE),
            "gradient_norm/contrastive": ("contrastive", style.ORANGE),
            "gradient_norm/distillation": ("distillation", style.GREEN),
        },
    ),
    ("Cosine of the two gradients", {"gradient_cosine": ("", style.GREEN)}),
    ("Effective rank of the features", {"val/effective_rank": ("", style.PURPLE)}),
)


def training_curves(history: Sequence[Mapping[str, float]], path: Path | str) -> None:
    """Everything worth watching against steps; panels of numbers that a variant does not have are left out."""
    logged = {name for row in history for name in row}
    panels = [(title, lines) for title, lines in PANELS if logged & set(lines)]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with style.figure(path, 3.4 * columns, 2.4 * rows) as canvas:
        grid = canvas.subplots(rows, columns, squeeze=False).ravel()
        for unused in grid[len(panels) :]:
            unused.set_visible(False)
        for (title, lines), axes in zip(panels, grid, strict=False):
            for name, (label, colour) in lines.items():
                points = [(row["step"], row[name]) for row in history if name in row]
                if points:
                    marker = "o" if len(points) < 25 else None
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, color=colour, label=label or None, marker=marker, markersize=3)
            axes.set_title(title)
            axes.set_xlabel("step")
            if title.startswith("Cosine"):
                axes.axhline(0, color=style.GREY, linewidth=0.8)
            if any(label for label, _ in lines.values()):
                axes.legend()


def image_rows(rows: Mapping[str, np.ndarray], path: Path | str) -> None:
    """Images uint8 (N, H, W, C), one labelled row (or block of rows of 16) a name."""
    across = 16
    blocks = {name: _tile(images, across) for name, images in rows.items()}
    heights = [block.shape[0] for block in blocks.values()]
    width = max(block.shape[1] for block in blocks.values())
    with style.figure(path, 8.6, 8.0 * sum(heights) / width + 0.35 * len(blocks)) as canvas:
        panels = canvas.subplots(len(blocks), 1, squeeze=False, height_ratios=heights).ravel()
        for axes, (name, block) in zip(panels, blocks.items(), strict=True):
            axes.imshow(block, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(name)
            axes.axis("off")


def _tile(images: np.ndarray, across: int) -> np.ndarray:
    """Images (N, H, W, C) side by side with a white line between them, (rows·(H+1), across·(W+1)[, 3])."""
    n, h, w, c = images.shape
    rows = -(-n // across)
    canvas = np.full((rows * (h + 1), min(n, across) * (w + 1), c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // across) * (h + 1), (i % across) * (w + 1)
        canvas[top : top + h, left : left + w] = image
    return canvas[..., 0] if c == 1 else canvas
