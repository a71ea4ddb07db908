"""Detectors that read the linear probe's uncalibrated logits: an image is suspicious where no class stands out."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.probes.run import LinearProbe

GEN_POWER, GEN_CLASSES = 0.1, 100  # γ and M of the paper
REACT_PERCENTILE = 90  # p of the paper
ROWS_AT_MOST = 50_000  # rows that a percentile of the training activations is taken from


@dataclass(frozen=True)
class LogitDetector:
    """A function of the probe's logits."""

    probe: LinearProbe
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> Self:
        return cls(data.probe)

    def score(self, batch: Batch) -> np.ndarray:
        return self.of_logits(self.probe.logits(batch.features))

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        """Scores (N,) of logits (N, K)."""
        raise NotImplementedError


class Msp(LogitDetector):
    """Minus the log of the probe's largest probability (Hendrycks and Gimpel 2017, https://arxiv.org/abs/1610.02136).

    The logarithm keeps the order and tells confident images apart where the probability itself rounds to 1.
    """

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        ordered = np.sort(logits, axis=1)  # (N, K), largest last
        return np.log1p(np.exp(ordered[:, :-1] - ordered[:, -1:]).sum(axis=1))


class MaxLogit(LogitDetector):
    """Minus the largest logit (Hendrycks et al. 2022, https://arxiv.org/abs/1911.11132)."""

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        return -logits.max(axis=1)


class Energy(LogitDetector):
    """Minus the log-sum-exp of the probe's logits at temperature 1 (Liu et al. 2020, https://arxiv.org/abs/2010.03759)."""

    @staticmethod
    def of_logits(logits: np.ndarray) -> np.ndarray:
        from scipy.special import logsumexp

        return -logsumexp(logits, axis=1)


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


@dataclass(frozen=True)
class React:
    """Energy of features that are clipped at a percentile of all training activations (Sun, Guo and Li 2021).

    https://arxiv.org/abs/2111.12797. It is made for a ReLU's features. Those of a transformer are negative as well, and
    only the large ones are clipped.
    """

    probe: LinearProbe
    ceiling: float
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "React":
        features = data.train.features
        step = -(-len(features) // ROWS_AT_MOST)
        return cls(data.probe, float(np.percentile(features[::step], REACT_PERCENTILE)))

    def score(self, batch: Batch) -> np.ndarray:
        return Energy.of_logits(self.probe.logits(np.minimum(batch.features, self.ceiling)))


@dataclass(frozen=True)
class Vim:
    """Virtual logit α ‖residual‖ minus the log-sum-exp of the others (Wang et al. 2022, https://arxiv.org/abs/2203.10807).

    The residual is what features, seen from the point where all logits vanish, have outside of the training split's
    principal subspace. α makes the virtual logit as large on average as the largest real one. The subspace has half of
    the features' dimensions, near the paper's choices (1,000 of 2,048; 512 of 768).
    """

    probe: LinearProbe
    origin: np.ndarray  # (D,)
    complement: np.ndarray  # (D, R): an orthonormal base of what is not in the principal subspace
    alpha: float
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Vim":
        features, probe = data.train.features, data.probe
        origin = -np.linalg.pinv(probe.weight) @ probe.bias  # (D,)
        centred = features - origin  # (N, D)
        width = centred.shape[1]
        _, directions = np.linalg.eigh(centred.T @ centred / len(centred))  # (D, D), smallest variance first
        complement = directions[:, : width - width // 2]  # (D, R)
        residual = np.linalg.norm(centred @ complement, axis=1).mean()
        alpha = probe.logits(features).max(axis=1).mean() / max(residual, np.finfo(np.float32).tiny)
        return cls(probe, origin, complement, float(alpha))

    def score(self, batch: Batch) -> np.ndarray:
        residual = np.linalg.norm((batch.features - self.origin) @ self.complement, axis=1)  # (N,)
        return self.alpha * residual + Energy.of_logits(self.probe.logits(batch.features))
