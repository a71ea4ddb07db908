"""Encoding images in batches, in full precision and without augmentation."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.model.tokens import reduced, to_unit


@torch.no_grad()
def encode_images(
    model: GCRL, images: np.ndarray, device: torch.device, batch_size: int = 256
) -> tuple[Tensor, Tensor | None]:
    """Features float32 (N, D) and mean NLL in nats a pixel float64 (N,), or None without a decoder.

    The model must be in evaluation mode, images are uint8 (N, H, W, C); results lie on the CPU.
    """
    features, nll = [], []
    for tokens in _batches(model, images, device, batch_size):
        outputs = model(tokens)
        features.append(outputs.features.cpu())
        if outputs.nll is not None:
            nll.append(outputs.nll.double().mean((1, 2)).cpu())
    return torch.cat(features), torch.cat(nll) if nll else None


@torch.no_grad()
def encode_features(model: GCRL, images: np.ndarray, device: torch.device, batch_size: int = 256) -> Tensor:
    """The features alone: half the work, or less, of a model with a decoder."""
    found = [model.features(tokens).cpu() for tokens in _batches(model, images, device, batch_size)]
    return torch.cat(found)


def reduce_images(images: np.ndarray, size: int) -> np.ndarray:
    """Images uint8 (N, H, W, C) as a likelihood sees them that is taken of pictures reduced to `size`: uint8 (N, size,
    size, C)."""
    return _resized(images, lambda pixels: reduced(pixels, images.shape[1] // size))


def thumbnails(images: np.ndarray, largest: int = 32) -> np.ndarray:
    """Images uint8 (N, H, W, C) at `largest` pixels a side, or as they are where they have no more: uint8 (N, h, w, C).

    A linear classifier of all pixels of photographs takes minutes.
    """
    if images.shape[1] <= largest:
        return images
    return _resized(images, lambda pixels: F.adaptive_avg_pool2d(pixels, largest))


def _resized(images: np.ndarray, resize: Callable[[Tensor], Tensor], batch_size: int = 256) -> np.ndarray:
    """What `resize` makes of images uint8 (N, H, W, C), given to it as (n, C, H, W) in [0, 1]: uint8 (N, h, w, C)."""
    batches = (
        to_unit(torch.from_numpy(np.array(images[i : i + batch_size]))) for i in range(0, len(images), batch_size)
    )
    resized = [(resize(pixels) * 255).round().byte().permute(0, 2, 3, 1).numpy() for pixels in batches]
    return np.concatenate(resized) if resized else images


def _batches(model: GCRL, images: np.ndarray, device: torch.device, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
        yield model.tokenizer(to_unit(pixels))
