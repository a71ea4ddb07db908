"""Features and likelihood of every split, computed once: probes and detectors read nothing else of the model."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.data.prepared import Prepared
from components.evaluation.features import write_features
from components.model.encode import encode_images
from components.model.gcrl import GCRL
from components.training.diagnostics import feature_health


def embed(
    model: GCRL,
    prepared: Prepared,
    out: Path,
    device: torch.device,
    progress: Callable[..., Iterable[Any]] = lambda splits, **_: splits,
) -> dict[str, float]:
    """Write `<split>.features.npy` and `<split>.bits_per_dim.npy` of all labelled and OOD splits to `out`.

    Returns the mean bits/dim a split, and the health of the validation features. Bits/dim count H·W·C dimensions; where
    the palette does not hold all colours they are those of the quantised image.
    """
    model.to(device)
    metrics: dict[str, float] = {}
    for split in progress([s for s in prepared.splits if s != "pretrain"], desc="embed"):
        features, bits = features_and_bits(model, prepared.images(split), device)
        if bits is not None:
            metrics[f"bits_per_dim/{split}"] = float(bits.mean())
        write_features(out, split, features, bits)
        if split == "val":
            metrics |= feature_health(torch.from_numpy(features))
    return metrics


def features_and_bits(model: GCRL, images: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray | None]:
    """Features float32 (N, D) and bits per dimension float64 (N,), or None without a decoder, of uint8 (N, H, W, C)."""
    features, nll = encode_images(model, images, device)
    if nll is None:
        return features.numpy(), None
    return features.numpy(), (nll / (np.log(2) * images.shape[3])).numpy()  # from nats a pixel
