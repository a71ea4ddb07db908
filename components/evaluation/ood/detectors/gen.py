"""Generalised entropy of the linear probe's probabilities."""

import numpy as np

from components.evaluation.ood.base import Detector
from components.evaluation.ood.logits import LogitDetector

GEN_POWER, GEN_CLASSES = 0.1, 100  # γ and M of the paper


class Gen(LogitDetector):
    """Generalised entropy Σ pᵞ (1 − p)ᵞ of the probe's largest probabilities (Liu, Lochman and Zach 2023).

    https://openaccess.thecvf.com/content/CVPR2023/papers/Liu_GEN_Pushing_the_Limits_of_Softmax-Based_Out-of-Distribution_Detection_CVPR_2023_paper.pdf
    """

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        from scipy.special import softmax

        p = np.sort(softmax(logits, axis=1), axis=1)[:, ::-1]  # (N, K), largest first
        rest = 1 - p
        rest[:, 0] = p[:, 1:].sum(axis=1)  # 1 − p is 0 already where the largest probability rounds to 1
        return ((p * rest)[:, :GEN_CLASSES] ** GEN_POWER).sum(axis=1)


DETECTOR = Detector(
    fit=Gen.fit,
    family="logits",
    meaning="how evenly the linear probe spreads its probabilities",
    source="[Liu et al. 2023](https://openaccess.thecvf.com/content/CVPR2023/papers/Liu_GEN_Pushing_the_Limits_of_Softmax-Based_Out-of-Distribution_Detection_CVPR_2023_paper.pdf)",
    needs=("labels", "logits"),
    default=True,
    colour="green",
)
