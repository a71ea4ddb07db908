"""A detector turns an image's features, likelihood or pixels into a score, higher = more out-of-distribution.

This is what all detectors have in common. Each has its own file in detectors/, which registry.py finds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from components.evaluation.probes.linear_probe import Labelled, LinearProbe

Family = Literal["features", "logits", "likelihood", "several"]
Need = Literal["labels", "logits", "likelihood"]
Colour = Literal["black", "orange", "sky", "green", "yellow", "blue", "vermilion", "purple", "grey"]
Dashes = Literal["solid", "dashed", "dotted", "dashdot"]


@dataclass(frozen=True)
class Batch:
    """What a detector may look at."""

    features: np.ndarray  # (N, D)
    images: np.ndarray | None  # uint8 (N, H, W, C), None where they were not kept
    bits_per_dim: np.ndarray | None = None  # (N,), None for a variant without a likelihood
    bits_without_context: np.ndarray | None = None  # (N,), of the local head alone; None likewise

    @property
    def likelihood(self) -> np.ndarray:
        """`bits_per_dim`, for a detector that can't do without. Raises ValueError where there is none."""
        if self.bits_per_dim is None:
            raise ValueError("this detector needs a likelihood, and the batch has none")
        return self.bits_per_dim


@dataclass(frozen=True)
class InDistribution:
    """What detectors are fitted to. There is no place for OOD data here, and none for test data."""

    train: Labelled
    val: Batch
    probe: LinearProbe


class FittedDetector(Protocol):
    """Scores any batch."""

    def score(self, batch: Batch) -> np.ndarray:
        """Scores of a batch, float64 (N,), higher = more out-of-distribution."""
        ...


@dataclass(frozen=True)
class Detector:
    """A detector's declaration: all that configuration, tables, figures, the report page and the docs know of it.

    Its file defines it under the name DETECTOR; the file's name is the detector's.
    """

    fit: Callable[[InDistribution, int], FittedDetector]  # to in-distribution data alone; and the neighbours, `ood.k`
    family: Family  # what the score is made of: orders tables, and gives the line's dashes
    meaning: str  # what the score measures, for readers of the report page
    source: str  # where it is from, as Markdown
    needs: tuple[Need, ...] = ()  # a variant without a likelihood leaves out who needs one
    default: bool = False  # whether it runs where `ood.detectors` names none
    colour: Colour | None = None  # of its line; None: the next of a cycle
    dashes: Dashes | None = None  # None: its family's
