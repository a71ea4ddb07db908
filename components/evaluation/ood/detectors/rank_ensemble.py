"""Several detectors as one."""

from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, FittedDetector, InDistribution
from components.evaluation.ood.detectors import energy, knn, mahalanobis, typicality

# One of each kind: classes, neighbours, logits, likelihood. Chosen for being different, not for their results.
MEMBERS = (mahalanobis.DETECTOR, knn.DETECTOR, energy.DETECTOR, typicality.DETECTOR)


@dataclass(frozen=True)
class RankEnsemble:
    """Mean over detectors of a score's rank among the validation images' scores, from 0 to 1.

    Averaging ranks spares detectors of different units a common scale (Aggarwal and Sathe 2015,
    https://doi.org/10.1145/2830544.2830549). Beyond the highest validation score all ranks are 1: very far images
    are not told apart. A variant without a likelihood does without the members that need one.
    """

    members: tuple[FittedDetector, ...]
    references: tuple[np.ndarray, ...]  # validation scores of each member, ascending

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "RankEnsemble":
        usable = [m for m in MEMBERS if data.val.bits_per_dim is not None or "likelihood" not in m.needs]
        members = tuple(member.fit(data, k) for member in usable)
        return cls(members, tuple(np.sort(member.score(data.val)) for member in members))

    def score(self, batch: Batch) -> np.ndarray:
        ranks = [
            _rank(member.score(batch), reference)
            for member, reference in zip(self.members, self.references, strict=True)
        ]
        return np.mean(ranks, axis=0)


def _rank(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of the ascending `reference` below each score, ties counting half, (N,)."""
    below, not_above = (np.searchsorted(reference, scores, side=side) for side in ("left", "right"))
    return (below + not_above) / 2 / len(reference)


DETECTOR = Detector(
    fit=RankEnsemble.fit,
    family="several",
    meaning="mean rank by four of the detectors",
    source="of mahalanobis, knn, energy and typicality among validation images "
    "([Aggarwal & Sathe 2015](https://doi.org/10.1145/2830544.2830549))",
    needs=("labels", "logits"),
    default=True,
    colour="black",
)
