"""What detectors on the linear probe's uncalibrated logits have in common."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.probes.linear_probe import LinearProbe


@dataclass(frozen=True)
class LogitDetector:
    """A function of the probe's logits: an image is suspicious where no class stands out."""

    probe: LinearProbe

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> Self:
        return cls(data.probe)

    def score(self, batch: Batch) -> np.ndarray:
        return self.of_logits(self.probe.logits(batch.features))

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        """Scores (N,) of logits (N, K)."""
        raise NotImplementedError
