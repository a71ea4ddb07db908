"""Does the classifier's confidence match its accuracy? (Guo et al. 2017, https://arxiv.org/abs/1706.04599)"""

from dataclasses import dataclass

import numpy as np

LOG_TEMPERATURE_BOUNDS = (np.log(0.01), np.log(100.0))


@dataclass(frozen=True)
class Reliability:
    """Predictions grouped by confidence into equal-width bins. An empty bin has accuracy and confidence 0."""

    edges: np.ndarray  # (B + 1,), from 0 to 1
    counts: np.ndarray  # (B,)
    accuracy: np.ndarray  # (B,) share of right predictions
    confidence: np.ndarray  # (B,) mean probability of the predicted class

    @property
    def expected_calibration_error(self) -> float:
        """Mean of |accuracy − confidence| over the predictions (Guo et al. 2017, equation 3), between 0 and 1."""
        return float(self.counts @ np.abs(self.accuracy - self.confidence) / self.counts.sum())


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> Reliability:
    """Bin the predictions of `probabilities` (N, K) on `labels` (N,) by confidence, bin b being (b/B, (b+1)/B]."""
    edges = np.linspace(0, 1, bins + 1)  # (B + 1,)
    confidence = probabilities.max(axis=1)  # (N,)
    right = probabilities.argmax(axis=1) == labels  # (N,)
    bin_of = np.digitize(confidence, edges[1:-1], right=True)  # (N,)
    counts = np.bincount(bin_of, minlength=bins)  # (B,)
    share = np.maximum(counts, 1)
    return Reliability(
        edges=edges,
        counts=counts,
        accuracy=np.bincount(bin_of, weights=right, minlength=bins) / share,
        confidence=np.bincount(bin_of, weights=confidence, minlength=bins) / share,
    )


def negative_log_likelihoods(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each sample in nats, (N,), of `logits` (N, K) against `labels` (N,)."""
    from scipy.special import log_softmax

    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]  # (N,)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T that minimises the cross-entropy of `logits / T` (Guo et al. 2017, section 4.2).

    Give it validation data: `logits` (N, K), `labels` (N,). T lies between 0.01 and 100; perfectly separated
    validation data has no finite optimum and ends at the lower bound.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(negative_log_likelihoods(logits / np.exp(log_temperature), labels).mean())

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURE_BOUNDS, method="bounded").x))
