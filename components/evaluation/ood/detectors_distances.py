"""Detectors that measure how far a feature lies from the training features."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from components.errors import UserError
from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.gaussian import ClassGaussians
from components.evaluation.probes.neighbours import Neighbours, unit_length

CLUSTERS = (1, 5, 10, 20)  # SSD's candidates


@dataclass(frozen=True)
class Mahalanobis:
    """Distance to the nearest class mean under a tied covariance (Lee et al. 2018, https://arxiv.org/abs/1807.03888)."""

    gaussians: ClassGaussians
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Mahalanobis":
        return cls(ClassGaussians.fit(*data.train))

    def score(self, batch: Batch) -> np.ndarray:
        return np.sqrt(self.gaussians.squared_distances(batch.features).min(axis=1))  # (N,)


@dataclass(frozen=True)
class RelativeMahalanobis:
    """Squared distance to the nearest class minus that to all classes taken as one: min_k MD_k − MD_0.

    Ren et al. 2021, https://arxiv.org/abs/2106.09022.
    """

    gaussians: ClassGaussians
    background: ClassGaussians  # one class
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "RelativeMahalanobis":
        features, labels = data.train
        return cls(ClassGaussians.fit(features, labels), ClassGaussians.fit(features, np.zeros_like(labels)))

    def score(self, batch: Batch) -> np.ndarray:
        nearest = self.gaussians.squared_distances(batch.features).min(axis=1)  # (N,)
        return nearest - self.background.squared_distances(batch.features)[:, 0]


@dataclass(frozen=True)
class Knn:
    """Distance to the k-th nearest training feature, all of unit length (Sun et al. 2022, https://arxiv.org/abs/2204.06507)."""

    search: Neighbours
    k: int
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Knn":
        if k > len(data.train.features):
            raise UserError(f"ood.k: {k} neighbours asked of {len(data.train.features)} training images. Lower it.")
        return cls(Neighbours(data.train.features), k)

    def score(self, batch: Batch) -> np.ndarray:
        distances, _ = self.search.nearest(batch.features, self.k)  # (N, k)
        return distances[:, -1].astype(np.float64)


@dataclass(frozen=True)
class Ssd:
    """Squared distance to the nearest cluster under its own covariance; needs no labels (Sehwag et al. 2021).

    https://arxiv.org/abs/2103.12051. Features have unit length and are standardised; clusters are k-means's, as many as
    make the validation features most likely under the mixture of their Gaussians. Covariances are shrunk (see
    gaussian.py), because a cluster may have fewer images than the features have dimensions.
    """

    mean: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    clusters: tuple[ClassGaussians, ...]  # of one class each
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Ssd":
        from scipy.special import logsumexp

        features = unit_length(data.train.features)  # (N, D)
        mean, scale = features.mean(axis=0), features.std(axis=0)  # (D,) each
        scale = np.where(scale > 1e-6, scale, 1)
        features = (features - mean) / scale
        val = (unit_length(data.val.features) - mean) / scale
        best: tuple[float, tuple[ClassGaussians, ...]] | None = None
        for count in (c for c in CLUSTERS if 2 * c <= len(features)):  # so that one cluster has two images
            assigned = k_means(features, count)
            present, sizes = np.unique(assigned, return_counts=True)
            present, sizes = present[sizes > 1], sizes[sizes > 1]  # one image has no covariance
            clusters = tuple(ClassGaussians.fit(features[c], np.zeros(c.sum())) for c in assigned == present[:, None])
            log_densities = [g.log_volume - g.squared_distances(val)[:, 0] / 2 for g in clusters]  # M × (N,)
            log_weights = np.log(sizes / sizes.sum())  # (M,)
            likelihood = float(logsumexp(np.stack(log_densities, axis=1) + log_weights, axis=1).mean())
            if best is None or likelihood > best[0]:
                best = likelihood, clusters
        assert best is not None  # one cluster is always among the candidates
        return cls(mean, scale, best[1])

    def score(self, batch: Batch) -> np.ndarray:
        features = (unit_length(batch.features) - self.mean) / self.scale
        return np.min([gaussian.squared_distances(features)[:, 0] for gaussian in self.clusters], axis=0)  # (N,)


def k_means(features: np.ndarray, count: int) -> np.ndarray:
    """Cluster of each of `features` (N, D), int (N,) below `count`; the same features give the same clusters."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct features than clusters
        return MiniBatchKMeans(count, batch_size=4096, n_init=3, random_state=0).fit_predict(features)
