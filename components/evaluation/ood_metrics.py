"""How well do scores tell out-of-distribution (OOD) images from in-distribution (ID) ones?

Everywhere: a higher score means more out-of-distribution, and OOD is the positive class, as in OpenOOD v1.5
(https://arxiv.org/abs/2306.09301). Ties count half in AUROC and are never split in the other two.
"""

import numpy as np

RESAMPLES_AT_ONCE = 50  # bounds the bootstrap's memory


def auroc(id_scores: np.ndarray, ood_scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that an OOD image scores higher than an ID one (Mann–Whitney)."""
    ordered = np.sort(id_scores)
    below = np.searchsorted(ordered, ood_scores, side="left")  # (M,)
    not_above = np.searchsorted(ordered, ood_scores, side="right")  # (M,)
    return float((below + not_above).mean() / 2 / len(id_scores))


def aupr(id_scores: np.ndarray, ood_scores: np.ndarray) -> float:
    """Area under the precision-recall curve as average precision. Chance level is the share of OOD images."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_labelled(id_scores, ood_scores)))


def fpr_at_tpr(id_scores: np.ndarray, ood_scores: np.ndarray, tpr: float = 0.95) -> float:
    """FPR@95: the share of ID images flagged at the highest threshold that flags at least `tpr` of the OOD images."""
    m = len(ood_scores)
    needed = int(np.searchsorted(np.arange(1, m + 1) / m, tpr)) + 1
    threshold = np.sort(ood_scores)[m - needed]
    return float((id_scores >= threshold).mean())


def roc_curve(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve's corners: false positive rate, true positive rate, (P,) each, from (0, 0) to (1, 1)."""
    from sklearn.metrics import roc_curve as sklearn_roc_curve

    false_positive_rate, true_positive_rate, _ = sklearn_roc_curve(*_labelled(id_scores, ood_scores))
    return false_positive_rate, true_positive_rate


def auroc_interval(
    id_scores: np.ndarray, ood_scores: np.ndarray, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the AUROC, ID and OOD images resampled separately (stratified).

    The same seed and sizes draw the same images, so that intervals of several detectors are paired. A resample is a
    count for each image; with ID images sorted by score, the count of those below an OOD score is one cumulative sum.
    """
    rng = np.random.default_rng(seed)
    n, m = len(id_scores), len(ood_scores)
    order = np.argsort(id_scores, kind="stable")  # (N,)
    below = np.searchsorted(id_scores[order], ood_scores, side="left")  # (M,)
    not_above = np.searchsorted(id_scores[order], ood_scores, side="right")  # (M,)
    areas = []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        size = min(RESAMPLES_AT_ONCE, resamples - start)
        id_counts = _resample_counts(rng, size, n)[:, order]  # (R, N)
        ood_counts = _resample_counts(rng, size, m)  # (R, M)
        cumulative = np.concatenate([np.zeros((size, 1), np.int64), id_counts.cumsum(axis=1)], axis=1)  # (R, N + 1)
        wins = cumulative[:, below] + cumulative[:, not_above]  # (R, M), twice the ID images beaten
        areas.append(np.einsum("rm,rm->r", wins, ood_counts) / (2 * n * m))
    low, high = np.quantile(np.concatenate(areas), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resample_counts(rng: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """How often each of n images is drawn in each resample of n draws with replacement, (R, N)."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)


def _labelled(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    is_ood = np.repeat([0, 1], [len(id_scores), len(ood_scores)])  # (N + M,)
    return is_ood, np.concatenate([id_scores, ood_scores])
