"""Corrupted images: noise, blur, contrast, JPEG and pixelation at five severities.

As in CIFAR-10-C (Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261), even to cutting values off to whole
numbers instead of rounding them. Blur is in pixels and pixelation relative to the size: at other sizes than 32, two of
its severities can be the same (8 pixels) or change places (64 pixels).
"""

import io
from collections.abc import Callable

import numpy as np

from components.evaluation.config import SMALLEST_CORRUPTED, Corruption

SEVERITIES = (1, 2, 3, 4, 5)
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)  # standard deviation, of the range of values
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)  # standard deviation, pixels
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # what remains of it
JPEG = (80, 65, 58, 50, 40)  # quality
PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)  # size on the way, of the original's
ROWS_AT_ONCE = 1024  # bounds the memory of the images as floating-point numbers


def corrupt(images: np.ndarray, corruption: Corruption, severity: int, seed: int) -> np.ndarray:
    """Corrupted copies, uint8 (N, H, W, C), of uint8 `images` (N, H, W, C) with one or three channels.

    `severity` is 1 to 5. An image's noise depends on the seed and its place in `images`, and is the same pattern at
    every severity. Raises ValueError for other images or severities.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"expected uint8 images (N, H, W, 1 or 3), found {images.dtype} {images.shape}")
    if min(images.shape[1:3]) < SMALLEST_CORRUPTED:
        raise ValueError(
            f"expected images of {SMALLEST_CORRUPTED} × {SMALLEST_CORRUPTED} pixels or more, found {images.shape[1:3]}"
        )
    if severity not in SEVERITIES:
        raise ValueError(f"expected a severity from 1 to 5, found {severity}")
    rng = np.random.default_rng(seed)
    corrupted = np.empty_like(images)
    for start in range(0, len(images), ROWS_AT_ONCE):
        block = np.asarray(images[start : start + ROWS_AT_ONCE])
        corrupted[start : start + ROWS_AT_ONCE] = CORRUPTIONS[corruption](block, severity - 1, rng)
    return corrupted


def _gaussian_noise(images: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    return _to_uint8(images / 255 + NOISE[level] * rng.standard_normal(images.shape))


def _gaussian_blur(images: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return _to_uint8(gaussian_filter(images / 255, (0, BLUR[level], BLUR[level], 0), mode="nearest"))


def _contrast(images: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    unit = images / 255
    means = unit.mean(axis=(1, 2), keepdims=True)  # (N, 1, 1, C)
    return _to_uint8((unit - means) * CONTRAST[level] + means)


def _jpeg_compression(images: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    def compress(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG[level])
        return Image.open(buffer)

    return _with_pillow(images, compress)


def _pixelate(images: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    height, width = images.shape[1:3]
    small = int(width * PIXELATE[level]), int(height * PIXELATE[level])
    box = Image.Resampling.BOX
    return _with_pillow(images, lambda image: image.resize(small, box).resize((width, height), box))


CORRUPTIONS: dict[Corruption, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "gaussian_blur": _gaussian_blur,
    "contrast": _contrast,
    "jpeg_compression": _jpeg_compression,
    "pixelate": _pixelate,
}


def _to_uint8(unit: np.ndarray) -> np.ndarray:
    return (np.clip(unit, 0, 1) * 255).astype(np.uint8)


def _with_pillow(images: np.ndarray, change: Callable) -> np.ndarray:
    from PIL import Image

    channels = images.shape[3]
    changed = [change(Image.fromarray(image[..., 0] if channels == 1 else image)) for image in images]
    return np.stack([np.asarray(image) for image in changed]).reshape(images.shape)
