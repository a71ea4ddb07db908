"""Encoding images in batches, in full precision and without augmentation."""

from collections.abc import Iterator

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


def reduce_images(images: np.ndarray, size: int | None, batch_size: int = 256) -> np.ndarray:
    """Images uint8 (N, H, W, C) as the likelihood sees them that is taken of pictures reduced to `size` (None: as they
    are): uint8 (N, size, size, C)."""
    if size is None:
        return images
    small = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for start in range(0, len(images), batch_size):
        pixels = to_unit(torch.from_numpy(np.array(images[start : start + batch_size])))
        levels = (reduced(pixels, images.shape[1] // size) * 255).round().byte()
        small[start : start + batch_size] = levels.permute(0, 2, 3, 1).numpy()
    return small


def thumbnails(images: np.ndarray, largest: int = 32, batch_size: int = 256) -> np.ndarray:
    """Images uint8 (N, H, W, C) at `largest` pixels a side, or as they are where they have no more: uint8 (N, h, w, C).

    A linear classifier of all pixels of photographs takes minutes.
    """
    if images.shape[1] <= largest:
        return images
    small = []
    for start in range(0, len(images), batch_size):
        pixels = to_unit(torch.from_numpy(np.array(images[start : start + batch_size])))
        small.append((F.adaptive_avg_pool2d(pixels, largest) * 255).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(small)


def _batches(model: GCRL, images: np.ndarray, device: torch.device, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
        yield model.tokenizer(to_unit(pixels))
