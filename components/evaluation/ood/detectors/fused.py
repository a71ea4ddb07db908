"""The hybrid OOD score: features and likelihood together, calibrated on in-distribution validation data alone.

The rule was chosen among six on the digits of seed 0, with their OOD sets in view (docs/results.md).
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution
from components.evaluation.ood.gaussian import ClassGaussians
from components.files import atomic_file, read_arrays


def combine(z: np.ndarray) -> np.ndarray:
    """One score (N,) from standardised components `z` (N, J): the distance's, plus the size of the likelihood's.

    The likelihood counts two-sided, because images that are too likely are suspicious as well (typicality: Nalisnick et
    al. 2019, https://arxiv.org/abs/1906.02994).
    """
    return z[:, 0] + np.abs(z[:, 1:]).sum(axis=1)


@dataclass(frozen=True)
class Fused:
    """combine(z), z = (component − location) / scale for the distance to the nearest class and the bits per dimension.

    The distance is Mahalanobis's (Lee et al. 2018, https://arxiv.org/abs/1807.03888). Location and scale are median and
    normalised interquartile range on validation data: the training split's own distances are too small, the encoder
    has fitted it. A variant without a likelihood has the distance alone. All arrays are public, so that the score can
    be rebuilt in another framework.
    """

    center: np.ndarray  # (D,)
    whitening: np.ndarray  # (D, D)
    means: np.ndarray  # (K, D): distance to class k is ‖(x − center) @ whitening − means[k]‖
    locations: np.ndarray  # (J,), J = 2 with a likelihood, else 1
    scales: np.ndarray  # (J,)

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Fused":
        gaussians = ClassGaussians.fit(*data.train)
        count = 1 if data.val.bits_per_dim is None else 2
        unscaled = cls(gaussians.center, gaussians.whitening, gaussians.means, np.zeros(count), np.ones(count))
        lower, locations, upper = np.quantile(unscaled.components(data.val), [0.25, 0.5, 0.75], axis=0)  # (J,) each
        scales = (upper - lower) / 1.349  # (J,): the standard deviation of a normal distribution
        return dataclasses.replace(unscaled, locations=locations, scales=np.where(scales > 0, scales, 1.0))

    def components(self, batch: Batch) -> np.ndarray:
        """Components before standardisation, (N, J): distance[, bits per dimension]."""
        gaussians = ClassGaussians(self.center, self.whitening, self.means)
        distance = np.sqrt(gaussians.squared_distances(batch.features).min(axis=1))  # (N,)
        if len(self.locations) == 1:
            return distance[:, None]
        if batch.bits_per_dim is None:
            raise ValueError("fitted with a likelihood, and the batch has none")
        return np.stack([distance, batch.bits_per_dim], axis=1)

    def score(self, batch: Batch) -> np.ndarray:
        return combine((self.components(batch) - self.locations) / self.scales)

    def save(self, path: Path | str) -> None:
        """Write all arrays as an .npz file."""
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path | str) -> "Fused":
        """Read what `save` wrote. Raises UserError where the file is missing or damaged."""
        return cls(
            **read_arrays(path, {"center": 1, "whitening": 2, "means": 2, "locations": 1, "scales": 1}, "The ood stage")
        )


DETECTOR = Detector(
    fit=Fused.fit,
    family="several",
    meaning="distance in feature space and likelihood together; the score of the exported model",
    source="z(distance) + abs(z(bits/dim)), standardised on validation; the rule, see below",
    needs=("labels",),
    default=True,
    colour="black",
    dashes="solid",
)
