"""The largest probability of the linear probe."""

import numpy as np

from components.evaluation.ood.base import Detector
from components.evaluation.ood.logits import LogitDetector


class Msp(LogitDetector):
    """Minus the log of the probe's largest probability (Hendrycks and Gimpel 2017, https://arxiv.org/abs/1610.02136).

    The logarithm keeps the order and tells confident images apart where the probability itself rounds to 1.
    """

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        ordered = np.sort(logits, axis=1)  # (N, K), largest last
        return np.log1p(np.exp(ordered[:, :-1] - ordered[:, -1:]).sum(axis=1))


DETECTOR = Detector(
    fit=Msp.fit,
    family="logits",
    meaning="how unsure the linear probe is of its first choice",
    source="[Hendrycks & Gimpel 2017](https://arxiv.org/abs/1610.02136)",
    needs=("labels", "logits"),
    default=True,
    colour="orange",
)
