"""Distance to the nearest cluster of features; needs no labels."""

import warnings
from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution
from components.evaluation.ood.gaussian import ClassGaussians
from components.evaluation.probes.neighbours import unit_length

CLUSTERS = (1, 5, 10, 20)  # candidates


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


DETECTOR = Detector(
    fit=Ssd.fit,
    family="features",
    meaning="distance to the nearest cluster of features; needs no labels",
    source="[Sehwag et al. 2021](https://arxiv.org/abs/2103.12051); as many k-means clusters as suit validation best",
    default=True,
    colour="purple",
)
