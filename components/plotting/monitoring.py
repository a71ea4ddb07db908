"""A batch beside the reference: OOD scores and embeddings."""

from pathlib import Path

import numpy as np

from components.export.reference import Reference
from components.monitoring.scoring import Scored
from components.plotting import style

REFERENCE, BATCH = (style.BLUE, "validation"), (style.VERMILION, "batch")


def score_histogram(scored: Scored, reference: Reference, path: Path | str) -> None:
    """Both distributions of the OOD score, the threshold, and the shares above it."""
    threshold = float(reference.threshold)
    both = np.concatenate([scored.ood_score, reference.ood_score])
    with style.figure(path, 5.6, 3.4) as canvas:
        axes = canvas.subplots()
        # scores far out can be tens of times the usual ones, which would squeeze all else into one bar
        bend = max(1.0, float(np.abs(reference.ood_score).max()))
        if float(both.max()) > 4 * bend:
            axes.set_xscale("asinh", linear_width=bend)  # linear up to there, logarithmic beyond
            powers = 10.0 ** np.arange(0, np.log10(both.max()))
            axes.set_xticks([0.0, *powers], [f"{tick:g}" for tick in (0.0, *powers)])
            bins = bend * np.sinh(np.linspace(np.arcsinh(both.min() / bend), np.arcsinh(both.max() / bend), 41))
        else:
            bins = np.linspace(both.min(), both.max(), 41)
        for (colour, name), x in ((REFERENCE, reference), (BATCH, scored)):
            label = f"{name}: {x.is_ood.mean():.1%} of {len(x.ood_score):,} flagged"
            weights = np.full(len(x.ood_score), 1 / len(x.ood_score))
            axes.hist(x.ood_score, bins.tolist(), weights=weights, color=colour, alpha=0.6, label=label)
        axes.axvline(threshold, color=style.BLACK, linestyle="--", linewidth=1.2, label="threshold")
        axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
        axes.set_title("OOD scores")
        axes.set_xlabel("OOD score")
        axes.set_ylabel("share of images")
        axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")


def embedding_projection(scored: Scored, reference: Reference, path: Path | str) -> None:
    """Embeddings on the two principal components of the reference."""
    center = reference.embedding.mean(axis=0)
    _, _, components = np.linalg.svd(reference.embedding - center, full_matrices=False)
    with style.figure(path, 4.6, 4.0) as canvas:
        axes = canvas.subplots()
        for (colour, name), x in ((REFERENCE, reference), (BATCH, scored)):
            points = (x.embedding - center) @ components[:2].T  # (E, 2)
            label = f"{name}: {len(points):,} images"
            axes.scatter(points[:, 0], points[:, 1], s=9, color=colour, alpha=0.5, linewidths=0, label=label)
        axes.set_title("Embeddings")
        axes.set_xlabel("first principal component of validation")
        axes.set_ylabel("second")
        axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none")
