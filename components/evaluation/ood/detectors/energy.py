"""The log-sum-exp of the linear probe's logits."""

import numpy as np

from components.evaluation.ood.base import Detector
from components.evaluation.ood.logits import LogitDetector


class Energy(LogitDetector):
    """Minus the log-sum-exp of the probe's logits at temperature 1 (Liu et al. 2020, https://arxiv.org/abs/2010.03759)."""

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        from scipy.special import logsumexp

        return -logsumexp(logits, axis=1)


DETECTOR = Detector(
    fit=Energy.fit,
    family="logits",
    meaning="how weak all outputs of the linear probe are together",
    source="[Liu et al. 2020](https://arxiv.org/abs/2010.03759)",
    needs=("labels", "logits"),
    default=True,
    colour="vermilion",
)
