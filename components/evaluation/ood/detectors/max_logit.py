"""The largest logit of the linear probe."""

import numpy as np

from components.evaluation.ood.base import Detector
from components.evaluation.ood.logits import LogitDetector


class MaxLogit(LogitDetector):
    """Minus the largest logit (Hendrycks et al. 2022, https://arxiv.org/abs/1911.11132)."""

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        return -logits.max(axis=1)


DETECTOR = Detector(
    fit=MaxLogit.fit,
    family="logits",
    meaning="how weak the linear probe's strongest output is",
    source="[Hendrycks et al. 2022](https://arxiv.org/abs/1911.11132); close to energy",
    needs=("labels", "logits"),
    colour="yellow",
)
