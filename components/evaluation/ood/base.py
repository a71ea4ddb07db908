"""Detectors turn an image's features, likelihood or pixels into a score, higher = more out-of-distribution.

`fit` sees in-distribution data alone; constants that a paper tunes on OOD data keep the paper's values. This is
what all have in common. The families have their own files, detectors_*.py, and so has the exported hybrid, fused.py.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from components.evaluation.probes.run import Labelled, LinearProbe


@dataclass(frozen=True)
class Batch:
    """What a detector may look at."""

    features: np.ndarray  # (N, D)
    images: np.ndarray | None  # uint8 (N, H, W, C), None where they were not kept
    bits_per_dim: np.ndarray | None = None  # (N,), None for a variant without a likelihood
    bits_without_context: np.ndarray | None = None  # (N,), of the local head alone; None likewise


@dataclass(frozen=True)
class InDistribution:
    """What detectors are fitted to. There is no place for OOD data here, and none for test data."""

    train: Labelled
    val: Batch
    probe: LinearProbe


class Detector(Protocol):
    """`fit` it once, then `score` any batch. Its metrics stand under its name in the configuration."""

    needs_likelihood: ClassVar[bool]

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Detector":
        """Fit to in-distribution data; `k` is the number of neighbours, for the detector that has any."""
        ...

    def score(self, batch: Batch) -> np.ndarray:
        """Scores of a batch, float64 (N,), higher = more out-of-distribution."""
        ...
