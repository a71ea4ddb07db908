"""Distance to the nearest class mean, scaled by the features' spread."""

from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution
from components.evaluation.ood.gaussian import ClassGaussians


@dataclass(frozen=True)
class Mahalanobis:
    """Distance to the nearest class mean under a tied covariance (Lee et al. 2018, https://arxiv.org/abs/1807.03888)."""

    gaussians: ClassGaussians

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Mahalanobis":
        return cls(ClassGaussians.fit(*data.train))

    def score(self, batch: Batch) -> np.ndarray:
        return np.sqrt(self.gaussians.squared_distances(batch.features).min(axis=1))  # (N,)


DETECTOR = Detector(
    fit=Mahalanobis.fit,
    family="features",
    meaning="distance to the nearest class in feature space, scaled by the features' spread",
    source="[Lee et al. 2018](https://arxiv.org/abs/1807.03888)",
    needs=("labels",),
    default=True,
    colour="blue",
)
