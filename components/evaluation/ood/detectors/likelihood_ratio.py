"""The likelihood, less what a model without context explains."""

from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution


@dataclass(frozen=True)
class LikelihoodRatio:
    """Bits per dimension beyond what the local head needs without context: log p(image without context) − log p(image).

    The likelihood ratio of Ren et al. 2019 (https://arxiv.org/abs/1906.02845, equation 2), negated, with the background
    model of context_likelihood.py. High where the rest of an image does not help to predict its patches, or misleads.
    What is strange in local statistics alone, it cannot see: they are subtracted.
    """

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "LikelihoodRatio":
        return cls()

    def score(self, batch: Batch) -> np.ndarray:
        if batch.bits_without_context is None:
            raise ValueError("this detector needs a likelihood without context, and the batch has none")
        return batch.likelihood - batch.bits_without_context


DETECTOR = Detector(
    fit=LikelihoodRatio.fit,
    family="likelihood",
    meaning="likelihood, less what a model without context explains",
    source="[Ren et al. 2019](https://arxiv.org/abs/1906.02845), see below",
    needs=("likelihood",),
    default=True,
    colour="green",
)
