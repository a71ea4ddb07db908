"""Distance to the nearest class, less that to all training images together."""

from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution
from components.evaluation.ood.gaussian import ClassGaussians


@dataclass(frozen=True)
class RelativeMahalanobis:
    """Squared distance to the nearest class minus that to all classes taken as one: min_k MD_k − MD_0.

    Ren et al. 2021, https://arxiv.org/abs/2106.09022.
    """

    gaussians: ClassGaussians
    background: ClassGaussians  # one class

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "RelativeMahalanobis":
        features, labels = data.train
        return cls(ClassGaussians.fit(features, labels), ClassGaussians.fit(features, np.zeros_like(labels)))

    def score(self, batch: Batch) -> np.ndarray:
        nearest = self.gaussians.squared_distances(batch.features).min(axis=1)  # (N,)
        return nearest - self.background.squared_distances(batch.features)[:, 0]


DETECTOR = Detector(
    fit=RelativeMahalanobis.fit,
    family="features",
    meaning="distance to the nearest class, less that to all training images together",
    source="[Ren et al. 2021](https://arxiv.org/abs/2106.09022)",
    needs=("labels",),
    default=True,
    colour="sky",
)
