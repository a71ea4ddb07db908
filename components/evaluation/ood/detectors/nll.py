"""The likelihood itself, in bits per dimension."""

from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution


@dataclass(frozen=True)
class Nll:
    """The model's bits per dimension: unlikely images are suspicious (Bishop 1994, https://doi.org/10.1049/ip-vis:19941330).

    Known to fail on smooth images, which are likely to any model (Nalisnick et al. 2018, https://arxiv.org/abs/1810.09136).
    """

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Nll":
        return cls()

    def score(self, batch: Batch) -> np.ndarray:
        return batch.likelihood


DETECTOR = Detector(
    fit=Nll.fit,
    family="likelihood",
    meaning="how unlikely the image is under the model",
    source="raw negative log-likelihood; can rank OOD images as *more* likely ([Nalisnick et al. 2019](https://arxiv.org/abs/1810.09136))",
    needs=("likelihood",),
    default=True,
    colour="purple",
)
