"""Nearest neighbours by cosine similarity, for the k-NN probe and the k-NN detector."""

from dataclasses import dataclass

import numpy as np

ROWS_AT_ONCE = 32_768  # of the features searched among, and of the queries: memory grows with neither


def unit_length(features: np.ndarray) -> np.ndarray:
    """Rows of `features` (N, D) divided by their Euclidean norm; a zero row stays zero."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)  # (N, 1)
    return features / np.maximum(norms, np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Neighbours:
    """Brute-force search among features, block by block, so that they may stay memory-mapped, a million of them too."""

    features: np.ndarray  # (N, D), of any length

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of each query (M, D), nearest first: Euclidean distances between unit vectors, indices, (M, k).

        Among unit vectors, squared distance = 2 − 2 · cosine similarity, so both give the same order.
        """
        parts = [self._nearest(queries[i : i + ROWS_AT_ONCE], k) for i in range(0, len(queries), ROWS_AT_ONCE)]
        distances, indices = zip(*parts, strict=True)
        return np.concatenate(distances), np.concatenate(indices)

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.neighbors import NearestNeighbors

        queries = unit_length(queries)
        distances = np.empty((len(queries), 0))
        indices = np.empty((len(queries), 0), np.intp)
        for start in range(0, len(self.features), ROWS_AT_ONCE):
            block = unit_length(self.features[start : start + ROWS_AT_ONCE])
            search = NearestNeighbors(algorithm="brute").fit(block)
            new_distances, new_indices = search.kneighbors(queries, n_neighbors=min(k, len(block)))
            distances = np.concatenate([distances, new_distances], axis=1)  # (M, at most 2k)
            indices = np.concatenate([indices, new_indices + start], axis=1)
            order = np.argsort(distances, axis=1)[:, :k]
            distances = np.take_along_axis(distances, order, axis=1)
            indices = np.take_along_axis(indices, order, axis=1)
        return distances, indices
