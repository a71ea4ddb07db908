"""Encoding images in batches, in full precision and without augmentation."""

import numpy as np
import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.model.tokens import to_unit


@torch.no_grad()
def encode_images(
    model: GCRL, images: np.ndarray, device: torch.device, batch_size: int = 256
) -> tuple[Tensor, Tensor | None]:
    """Features float32 (N, D) and mean NLL in nats a pixel float64 (N,), or None without a decoder.

    The model must be in evaluation mode, images are uint8 (N, H, W, C); results lie on the CPU.
    """
    features, nll = [], []
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
        tokens = model.tokenizer(to_unit(pixels))
        outputs = model(tokens)
        features.append(outputs.features.cpu())
        if outputs.nll is not None:
            nll.append(outputs.nll.double().mean((1, 2)).cpu())
    return torch.cat(features), torch.cat(nll) if nll else None
