"""Nearest neighbours by cosine similarity, for the k-NN probe and the k-NN detector."""

from dataclasses import dataclass
from typing import Any

import numpy as np


def unit_length(features: np.ndarray) -> np.ndarray:
    """Rows of `features` (N, D) divided by their Euclidean norm; a zero row stays zero."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)  # (N, 1)
    return features / np.maximum(norms, np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Neighbours:
    """Brute-force search among normalised features; scikit-learn goes through them in blocks, so memory is bounded."""

    search: Any  # sklearn.neighbors.NearestNeighbors

    @classmethod
    def among(cls, features: np.ndarray) -> "Neighbours":
        """Search among the rows of `features` (N, D)."""
        from sklearn.neighbors import NearestNeighbors

        return cls(NearestNeighbors(algorithm="brute").fit(unit_length(features)))

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of each query (N, D), nearest first: Euclidean distances between unit vectors, indices, (N, k).

        Among unit vectors, squared distance = 2 − 2 · cosine similarity, so both give the same order.
        """
        return self.search.kneighbors(unit_length(queries), n_neighbors=k)
