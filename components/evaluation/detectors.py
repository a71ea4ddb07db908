"""Detectors: each turns an image's features, likelihood or pixels into a score, higher = more out-of-distribution.

`fit` sees in-distribution data alone. The hybrid of features and likelihood has its own file, fused.py.
"""

import io
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from components.errors import UserError
from components.evaluation.gaussian import ClassGaussians
from components.evaluation.neighbours import Neighbours
from components.evaluation.probes import Labelled, LinearProbe


@dataclass(frozen=True)
class Batch:
    """What a detector may look at."""

    features: np.ndarray  # (N, D)
    images: np.ndarray  # uint8 (N, H, W, C)
    bits_per_dim: np.ndarray | None = None  # (N,), None for a variant without a likelihood


@dataclass(frozen=True)
class InDistribution:
    """What detectors are fitted to. There is no place for OOD data here, and none for test data."""

    train: Labelled
    val: Batch
    probe: LinearProbe


class Detector(Protocol):
    """`fit` it once, then `score` any batch. Its metrics stand under its name in the configuration."""

    needs_likelihood: ClassVar[bool]

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Detector":
        """Fit to in-distribution data; `k` is the number of neighbours, for the detector that has any."""
        ...

    def score(self, batch: Batch) -> np.ndarray:
        """Scores of a batch, float64 (N,), higher = more out-of-distribution."""
        ...


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
        return cls(Neighbours.among(data.train.features), k)

    def score(self, batch: Batch) -> np.ndarray:
        distances, _ = self.search.nearest(batch.features, self.k)  # (N, k)
        return distances[:, -1].astype(np.float64)


@dataclass(frozen=True)
class Msp:
    """Minus the log of the probe's largest probability (Hendrycks and Gimpel 2017, https://arxiv.org/abs/1610.02136).

    The logarithm keeps the order and tells confident images apart where the probability itself rounds to 1.
    """

    probe: LinearProbe
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Msp":
        return cls(data.probe)

    def score(self, batch: Batch) -> np.ndarray:
        from scipy.special import log_softmax

        return -log_softmax(self.probe.logits(batch.features), axis=1).max(axis=1)


@dataclass(frozen=True)
class Energy:
    """Minus the log-sum-exp of the probe's logits at temperature 1 (Liu et al. 2020, https://arxiv.org/abs/2010.03759)."""

    probe: LinearProbe
    needs_likelihood: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Energy":
        return cls(data.probe)

    def score(self, batch: Batch) -> np.ndarray:
        from scipy.special import logsumexp

        return -logsumexp(self.probe.logits(batch.features), axis=1)


@dataclass(frozen=True)
class Nll:
    """The model's bits per dimension: unlikely images are suspicious (Bishop 1994, https://doi.org/10.1049/ip-vis:19941330).

    Known to fail on smooth images, which are likely to any model (Nalisnick et al. 2018, https://arxiv.org/abs/1810.09136).
    """

    needs_likelihood: ClassVar[bool] = True

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Nll":
        return cls()

    def score(self, batch: Batch) -> np.ndarray:
        return likelihood_of(batch)


@dataclass(frozen=True)
class NllComplexity:
    """Bits per dimension beyond what a lossless compressor, here PNG, needs (Serrà et al. 2020, https://arxiv.org/abs/1909.11480)."""

    needs_likelihood: ClassVar[bool] = True

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "NllComplexity":
        return cls()

    def score(self, batch: Batch) -> np.ndarray:
        return likelihood_of(batch) - png_bits_per_dim(batch.images)


def likelihood_of(batch: Batch) -> np.ndarray:
    """The batch's bits per dimension (N,), for a detector that can't do without."""
    if batch.bits_per_dim is None:
        raise ValueError("this detector needs a likelihood, and the batch has none")
    return batch.bits_per_dim


def png_bits_per_dim(images: np.ndarray) -> np.ndarray:
    """Size of each image as an optimised PNG file, in bits per dimension (N,), of uint8 images (N, H, W, C)."""
    from PIL import Image

    def size(image: np.ndarray) -> int:
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(axis=-1) if image.shape[-1] == 1 else image).save(buffer, "PNG", optimize=True)
        return buffer.tell()

    return np.array([8 * size(image) / image.size for image in images])
