"""Distance of the likelihood to the usual one."""

from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution


@dataclass(frozen=True)
class Typicality:
    """Distance of the bits per dimension to their mean, either way (Nalisnick et al. 2019, https://arxiv.org/abs/1906.02994).

    The paper's test for a batch of one image, with the entropy estimated on validation data instead of training data,
    which the model has fitted.
    """

    entropy: float  # bits per dimension

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Typicality":
        return cls(float(data.val.likelihood.mean()))

    def score(self, batch: Batch) -> np.ndarray:
        return np.abs(batch.likelihood - self.entropy)


DETECTOR = Detector(
    fit=Typicality.fit,
    family="likelihood",
    meaning="how far the likelihood is from the usual one, too likely included",
    source="[Nalisnick et al. 2019](https://arxiv.org/abs/1906.02994)",
    needs=("likelihood",),
    default=True,
    colour="vermilion",
)
