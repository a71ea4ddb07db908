"""Detectors that read the model's likelihood, in bits per dimension."""

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from components.evaluation.ood.base import Batch, InDistribution


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
class Typicality:
    """Distance of the bits per dimension to their mean, either way (Nalisnick et al. 2019, https://arxiv.org/abs/1906.02994).

    The paper's test for a batch of one image, with the entropy estimated on validation data instead of training data,
    which the model has fitted.
    """

    entropy: float  # bits per dimension
    needs_likelihood: ClassVar[bool] = True

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "Typicality":
        return cls(float(likelihood_of(data.val).mean()))

    def score(self, batch: Batch) -> np.ndarray:
        return np.abs(likelihood_of(batch) - self.entropy)


@dataclass(frozen=True)
class NllComplexity:
    """Bits per dimension beyond what a lossless compressor, here PNG, needs (Serrà et al. 2020, https://arxiv.org/abs/1909.11480)."""

    needs_likelihood: ClassVar[bool] = True

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "NllComplexity":
        return cls()

    def score(self, batch: Batch) -> np.ndarray:
        if batch.images is None:
            raise ValueError("this detector needs images, and the batch has none")
        return likelihood_of(batch) - png_bits_per_dim(batch.images)


@dataclass(frozen=True)
class LikelihoodRatio:
    """Bits per dimension beyond what the local head needs without context: log p(image without context) − log p(image).

    The likelihood ratio of Ren et al. 2019 (https://arxiv.org/abs/1906.02845, equation 2), negated, with the background
    model of context_likelihood.py. High where the rest of an image does not help to predict its patches, or misleads.
    What is strange in local statistics alone, it cannot see: they are subtracted.
    """

    needs_likelihood: ClassVar[bool] = True

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "LikelihoodRatio":
        return cls()

    def score(self, batch: Batch) -> np.ndarray:
        if batch.bits_without_context is None:
            raise ValueError("this detector needs a likelihood without context, and the batch has none")
        return likelihood_of(batch) - batch.bits_without_context


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
