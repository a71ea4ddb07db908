"""The part of the features that the probe's directions do not explain, against its outputs."""

from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution
from components.evaluation.ood.detectors.energy import Energy
from components.evaluation.probes.linear_probe import LinearProbe


@dataclass(frozen=True)
class Vim:
    """Virtual logit α ‖residual‖ minus the log-sum-exp of the others (Wang et al. 2022, https://arxiv.org/abs/2203.10807).

    The residual is what features, seen from the point where all logits vanish, have outside of the training split's
    principal subspace. α makes the virtual logit as large on average as the largest real one. The subspace has half of
    the features' dimensions, near the paper's choices (1,000 of 2,048; 512 of 768).
    """

    probe: LinearProbe
    origin: np.ndarray  # (D,)
    complement: np.ndarray  # (D, R): an orthonormal base of what is not in the principal subspace
    alpha: float

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Vim":
        features, probe = data.train.features, data.probe
        origin = -np.linalg.pinv(probe.weight) @ probe.bias  # (D,)
        centred = features - origin  # (N, D)
        width = centred.shape[1]
        _, directions = np.linalg.eigh(centred.T @ centred / len(centred))  # (D, D), smallest variance first
        complement = directions[:, : width - width // 2]  # (D, R)
        residual = np.linalg.norm(centred @ complement, axis=1).mean()
        alpha = probe.logits(features).max(axis=1).mean() / max(residual, np.finfo(np.float32).tiny)
        return cls(probe, origin, complement, float(alpha))

    def score(self, batch: Batch) -> np.ndarray:
        residual = np.linalg.norm((batch.features - self.origin) @ self.complement, axis=1)  # (N,)
        return self.alpha * residual + Energy.of_logits(self.probe.logits(batch.features))


DETECTOR = Detector(
    fit=Vim.fit,
    family="several",
    meaning="the part of the features that the probe's directions do not explain, against its outputs",
    source="[Wang et al. 2022](https://arxiv.org/abs/2203.10807)",
    needs=("labels", "logits"),
    default=True,
    colour="blue",
)
