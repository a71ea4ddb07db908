"""Distance to the k-th most similar training image."""

from dataclasses import dataclass

import numpy as np

from components.errors import UserError
from components.evaluation.ood.base import Batch, Detector, InDistribution
from components.evaluation.probes.neighbours import Neighbours


@dataclass(frozen=True)
class Knn:
    """Distance to the k-th nearest training feature, all of unit length (Sun et al. 2022, https://arxiv.org/abs/2204.06507)."""

    search: Neighbours
    k: int

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Knn":
        if k > len(data.train.features):
            raise UserError(f"ood.k: {k} neighbours asked of {len(data.train.features)} training images. Lower it.")
        return cls(Neighbours(data.train.features), k)

    def score(self, batch: Batch) -> np.ndarray:
        distances, _ = self.search.nearest(batch.features, self.k)  # (N, k)
        return distances[:, -1].astype(np.float64)


DETECTOR = Detector(
    fit=Knn.fit,
    family="features",
    meaning="distance to the k-th most similar training image",
    source="[Sun et al. 2022](https://arxiv.org/abs/2204.06507)",
    default=True,
    colour="green",
)
