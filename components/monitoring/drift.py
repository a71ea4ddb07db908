"""Whether a batch of images differs from the reference: three tests that decide, and one for information.

| test | null hypothesis | effect |
|---|---|---|
| share flagged as OOD | as calibrated: exact beta-binomial, one-sided | what is above the calibrated level |
| OOD scores | one distribution: Kolmogorov–Smirnov, two samples | largest difference of the distribution functions |
| embeddings | one distribution: maximum mean discrepancy (MMD), by permutation | the MMD |
| predicted classes | the same shares: χ² | Cramér's V |

After Rabanser et al. 2019, "Failing Loudly" (https://arxiv.org/abs/1810.11953). The level is divided by the number of
tests that decide (Bonferroni).
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.export.reference import Reference
from components.monitoring.config import DriftThresholds
from components.monitoring.scoring import Scored

DECIDING = 3  # tests
PERMUTATIONS = 5  # times 1 / level, so that a p-value below the level is no matter of one permutation
TOGETHER = 500  # permutations computed in one matrix product

PromotionOutcome = Literal["drift", "no drift", "too few images to tell", "for information"]


@dataclass(frozen=True)
class DriftTest:
    """The outcome of one test."""

    title: str  # what was compared
    measure: str  # what the effect is
    effect: float
    p_value: float | None  # None: too few images
    level: float  # p-values below are significant
    limit: float | None  # effects above matter; None: for information

    @property
    def verdict(self) -> PromotionOutcome:
        if self.p_value is None:
            return "too few images to tell"
        if self.limit is None:
            return "for information"
        return "drift" if self.p_value < self.level and self.effect > self.limit else "no drift"


def drift_tests(scored: Scored, reference: Reference, thresholds: DriftThresholds) -> dict[str, DriftTest]:
    """Every test of a batch, by name. The same batch gives the same numbers."""
    level = thresholds.alpha / DECIDING
    enough = min(len(scored.ood_score), len(reference.ood_score)) >= thresholds.min_images
    excess, p_flagged = flagged_share(scored.is_ood, reference.is_ood, float(reference.false_alarm_rate), level)
    distance, p_score = score_distance(scored.ood_score, reference.ood_score)
    discrepancy, p_embedding = mean_discrepancy(
        scored.embedding, reference.embedding, int(PERMUTATIONS / level), np.random.default_rng(0)
    )
    association, p_classes = class_association(scored.predicted, reference.predicted, len(reference.classes))
    found: tuple[tuple[str, str, str, float, float | None, float | None], ...] = (
        ("flagged", "share flagged as OOD", "above the level", excess, p_flagged, thresholds.flagged_excess),
        ("ood_score", "OOD scores", "Kolmogorov–Smirnov", distance, p_score, thresholds.score_distance),
        ("embedding", "embeddings", "MMD", discrepancy, p_embedding, thresholds.embedding_distance),
        ("classes", "predicted classes", "Cramér's V", association, p_classes, None),
    )
    return {
        name: DriftTest(title, measure, effect, p if enough or name == "flagged" else None, level, limit)
        for name, title, measure, effect, p, limit in found
    }


def flagged_share(
    flagged: np.ndarray, reference: np.ndarray, false_alarm_rate: float, level: float
) -> tuple[float, float | None]:
    """Share of a batch (M,) flagged above the calibrated level, and its p-value; both are bool, one an image.

    The threshold is an order statistic of the N reference scores, F of which lie above it. So a fresh image's chance to
    be flagged is itself random, Beta(F + 1, N − F), and the number flagged of M is beta-binomial, whatever the scores'
    distribution (Bates et al. 2023, https://arxiv.org/abs/2104.08279). A binomial test takes the level for exact, and
    alarms too often where N is small. None where not even a batch wholly flagged would be significant.
    """
    from scipy.stats import betabinom

    above = int(reference.sum())
    null = betabinom(len(flagged), above + 1, max(1, len(reference) - above))
    excess = float(flagged.mean()) - false_alarm_rate
    if null.sf(len(flagged) - 1) >= level:
        return excess, None
    return excess, float(null.sf(int(flagged.sum()) - 1))


def score_distance(scores: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Two-sample Kolmogorov–Smirnov distance, 0 to 1, and its two-sided p-value; scores (M,) and (N,)."""
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the exact p-value gave way to the asymptotic one
        result = ks_2samp(scores, reference)
    return float(result.statistic), float(result.pvalue)


def mean_discrepancy(
    x: np.ndarray, y: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[float, float | None]:
    """Maximum mean discrepancy of x (M, D) and y (N, D) and its p-value; None where one has fewer than two rows.

    Gretton et al. 2012 (https://jmlr.org/papers/v13/gretton12a.html): the root of the unbiased estimate of its square
    (0 where that is negative), with a Gaussian kernel as wide as the median distance. The p-value is exact at any size:
    the share of random splits of all rows that give as much.
    """
    m, n = len(x), len(y)
    if min(m, n) < 2:
        return 0.0, None
    kernel = _gaussian_kernel(np.concatenate([x, y]).astype(np.float64))
    rows, total = kernel.sum(axis=1), kernel.sum()

    def squared(members: np.ndarray) -> np.ndarray:
        """Unbiased MMD² (P,) for each column of 0 and 1 (M + N, P), 1 meaning that a row belongs to x."""
        within = (members * (kernel @ members)).sum(axis=0)
        across = rows @ members - within
        return within / (m * (m - 1)) + (total - within - 2 * across) / (n * (n - 1)) - 2 * across / (m * n)

    members = np.repeat([1.0, 0.0], [m, n])[:, None]
    observed = float(squared(members)[0])
    as_much = 0
    for start in range(0, permutations, TOGETHER):
        repeated = np.repeat(members, min(TOGETHER, permutations - start), axis=1)
        as_much += int((squared(rng.permuted(repeated, axis=0)) >= observed - 1e-12).sum())
    return max(0.0, observed) ** 0.5, (1 + as_much) / (1 + permutations)


def class_association(predicted: np.ndarray, reference: np.ndarray, classes: int) -> tuple[float, float]:
    """Cramér's V of batch or reference with the predicted class (0 to 1), and the p-value of χ²; int (M,) and (N,)."""
    from scipy.stats import chi2_contingency
    from scipy.stats.contingency import association

    counts = np.stack([np.bincount(labels, minlength=classes) for labels in (predicted, reference)])
    counts = counts[:, counts.any(axis=0)]
    if counts.shape[1] < 2:
        return 0.0, 1.0
    return float(association(counts)), float(chi2_contingency(counts, correction=False).pvalue)


def _gaussian_kernel(rows: np.ndarray) -> np.ndarray:
    """exp(−d² / 2σ²) (N, N) of rows (N, D), σ being the median distance; 0 on the diagonal."""
    from scipy.spatial.distance import pdist, squareform

    squared = pdist(rows, "sqeuclidean")
    positive = squared[squared > 0]
    width = float(np.median(positive)) if len(positive) else 1.0
    kernel: np.ndarray = squareform(np.exp(-squared / (2 * width)))
    return kernel
