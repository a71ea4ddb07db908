"""Gaussians on features: one mean a class, one covariance for all."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ROWS_AT_ONCE = 4096  # bounds the memory of a distance matrix


@dataclass(frozen=True)
class ClassGaussians:
    """Class means with a tied covariance Σ, kept in whitened coordinates: z = (x − center) @ whitening.

    There, the Mahalanobis distance is the Euclidean one. `whitening` W is upper triangular with W Wᵀ = Σ⁻¹.
    """

    center: np.ndarray  # (D,) mean of all features
    whitening: np.ndarray  # (D, D)
    means: np.ndarray  # (K, D) class means, whitened

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "ClassGaussians":
        """Fit to `features` (N, D) of classes `labels` (N,).

        The covariance of the features around their class means is shrunk towards a multiple of the identity by
        Ledoit and Wolf's estimate (2004, https://doi.org/10.1016/S0047-259X(03)00096-4), so that it is invertible and
        directions which the training split hardly uses don't dominate.
        """
        from scipy.linalg import solve_triangular
        from sklearn.covariance import ledoit_wolf

        center = features.mean(axis=0, dtype=np.float64)  # (D,)
        centred = features - center  # (N, D)
        present, class_of = np.unique(labels, return_inverse=True)
        means = np.stack([centred[class_of == k].mean(axis=0) for k in range(len(present))])  # (K, D)
        for k, mean in enumerate(means):
            centred[class_of == k] -= mean  # in place: there is one float64 copy of the features
        covariance, _ = ledoit_wolf(centred, assume_centered=True)  # (D, D)
        # Constant features (a dead unit, all of them if the encoder collapsed) would make it singular.
        covariance += np.eye(len(center)) * max(1e-9 * np.trace(covariance) / len(center), np.finfo(np.float32).tiny)
        cholesky = np.linalg.cholesky(covariance)  # (D, D), lower triangular
        whitening = solve_triangular(cholesky, np.eye(len(center)), lower=True).T  # (D, D)
        return cls(center, whitening, means @ whitening)

    @property
    def log_volume(self) -> float:
        """log det Σ^(−½): what the log-density has beside minus half the squared distance and a constant."""
        return float(np.log(np.diag(self.whitening)).sum())

    def squared_distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of each of `features` (N, D) to each class, (N, K)."""
        from sklearn.metrics.pairwise import euclidean_distances

        return np.concatenate(
            [
                euclidean_distances((block - self.center) @ self.whitening, self.means, squared=True)
                for block in _blocks(features)
            ]
        )


def _blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(features), ROWS_AT_ONCE):
        yield features[start : start + ROWS_AT_ONCE]
