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


def intervals(
    id_scores: np.ndarray, ood_scores: np.ndarray, resamples: int, seed: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of auroc, aupr and fpr95, ID and OOD images resampled separately (stratified).

    The same seed and sizes draw the same images, so that intervals of several detectors are paired. A resample is a
    count for each image; with all images sorted once from the highest score down, the images flagged at every
    threshold are cumulative sums of the counts.
    """
    rng = np.random.default_rng(seed)
    n, m = len(id_scores), len(ood_scores)
    scores = np.concatenate([id_scores, ood_scores])
    order = np.argsort(-scores, kind="stable")  # (N + M,)
    is_ood = order >= n  # (N + M,)
    thresholds = np.append(np.flatnonzero(np.diff(scores[order])), n + m - 1)  # (P,) last place of each distinct score
    found: dict[str, list[np.ndarray]] = {"auroc": [], "aupr": [], "fpr95": []}
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        size = min(RESAMPLES_AT_ONCE, resamples - start)
        counts = np.concatenate([_resample_counts(rng, size, n), _resample_counts(rng, size, m)], axis=1)[:, order]
        ood_flagged = np.where(is_ood, counts, 0).cumsum(axis=1)[:, thresholds]  # (R, P)
        id_flagged = np.where(is_ood, 0, counts).cumsum(axis=1)[:, thresholds]  # (R, P)
        ood_here = np.diff(ood_flagged, axis=1, prepend=0)
        id_here = np.diff(id_flagged, axis=1, prepend=0)
        found["auroc"].append((ood_here * (n - id_flagged + id_here / 2)).sum(axis=1) / (n * m))
        precision = ood_flagged / np.maximum(ood_flagged + id_flagged, 1)
        found["aupr"].append((ood_here * precision).sum(axis=1) / m)
        enough = (ood_flagged / m >= 0.95).argmax(axis=1)  # (R,) the highest threshold that flags 95 % of OOD
        found["fpr95"].append(id_flagged[np.arange(size), enough] / n)
    limits = [(1 - level) / 2, (1 + level) / 2]
    quantiles = {name: np.quantile(np.concatenate(values), limits) for name, values in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in quantiles.items()}


def _resample_counts(rng: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """How often each of n images is drawn in each resample of n draws with replacement, (R, N)."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)


def _labelled(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    is_ood = np.repeat([0, 1], [len(id_scores), len(ood_scores)])  # (N + M,)
    return is_ood, np.concatenate([id_scores, ood_scores])
