"""The likelihood, less what a PNG file explains."""

import io
from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution


@dataclass(frozen=True)
class NllComplexity:
    """Bits per dimension beyond what a lossless compressor, here PNG, needs (Serrà et al. 2020, https://arxiv.org/abs/1909.11480)."""

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "NllComplexity":
        return cls()

    def score(self, batch: Batch) -> np.ndarray:
        if batch.images is None:
            raise ValueError("this detector needs images, and the batch has none")
        return batch.likelihood - png_bits_per_dim(batch.images)


def png_bits_per_dim(images: np.ndarray) -> np.ndarray:
    """Size of each image as an optimised PNG file, in bits per dimension (N,), of uint8 images (N, H, W, C)."""
    from PIL import Image

    def size(image: np.ndarray) -> int:
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(axis=-1) if image.shape[-1] == 1 else image).save(buffer, "PNG", optimize=True)
        return buffer.tell()

    return np.array([8 * size(image) / image.size for image in images])


DETECTOR = Detector(
    fit=NllComplexity.fit,
    family="likelihood",
    meaning="likelihood, less what a PNG file explains",
    source="[Serrà et al. 2020](https://arxiv.org/abs/1909.11480)",
    needs=("likelihood",),
    default=True,
    colour="grey",
)
