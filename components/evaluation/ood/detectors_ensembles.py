"""Several detectors as one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution
from components.evaluation.ood.detectors_distances import Knn, Mahalanobis
from components.evaluation.ood.detectors_likelihood import Typicality
from components.evaluation.ood.detectors_logits import Energy

# One of each kind: classes, neighbours, logits, likelihood. Chosen for being different, not for their results.
MEMBERS: tuple[type[Detector], ...] = (Mahalanobis, Knn, Energy, Typicality)


@dataclass(frozen=True)
class RankEnsemble:
    """Mean over detectors of a score's rank among the validation images' scores, from 0 to 1.

    Averaging ranks spares detectors of different units a common scale (Aggarwal and Sathe 2015,
    https://doi.org/10.1145/2830544.2830549). Beyond the highest validation score all ranks are 1: very far images
    are not told apart. A variant without a likelihood does without the members that need one.
    """

    members: tuple[Detector, ...]
    references: tuple[np.ndarray, ...]  # validation scores of each member, ascending
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "RankEnsemble":
        usable = [member for member in MEMBERS if data.val.bits_per_dim is not None or not member.needs_likelihood]
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
