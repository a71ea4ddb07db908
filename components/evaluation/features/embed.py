"""Features and likelihood of every split, computed once: probes and detectors read nothing else of the model."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.data.prepared import Prepared
from components.evaluation.config import EmbedConfig
from components.evaluation.features.context_likelihood import fit_context, nll_without_context
from components.evaluation.features.store import corrupted_split, evenly_spread, write_features
from components.evaluation.robustness.corruptions import corrupt
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
    """Write `<split>.features.npy` and, with a likelihood, `<split>.bits_per_dim.npy` and
    `<split>.bits_without_context.npy` (see context_likelihood.py) of all labelled and OOD splits to `out`.

    Returns the mean bits/dim a split, with and without context, and the health of the validation features. Bits/dim
    count H·W·C dimensions; where the palette does not hold all colours they are those of the quantised image. A model
    of the likelihood of reduced images counts theirs, and the metrics' names begin with `reduced_`.
    """
    model.to(device)
    metrics: dict[str, float] = {}
    kind = "" if model.reduced is None else "reduced_"
    context = fit_context(model, prepared.images("train"), device) if model.head else None
    for split in progress([s for s in prepared.splits if s != "pretrain"], desc="embed"):
        images, without_context = prepared.images(split), None
        features, bits = features_and_bits(model, images, device)
        if bits is not None:
            metrics[f"{kind}bits_per_dim/{split}"] = float(bits.mean())
        if context is not None:
            without_context = in_bits_per_dim(nll_without_context(model, context, images, device), images)
            metrics[f"{kind}bits_without_context/{split}"] = float(without_context.mean())
        write_features(out, split, features, bits, without_context)
        if split == "val":
            metrics |= feature_health(torch.from_numpy(features))
    return metrics


def embed_corrupted(
    model: GCRL, images: np.ndarray, config: EmbedConfig, seed: int, out: Path, device: torch.device
) -> None:
    """Write features and bits/dim of corrupted copies of `images`, uint8 (N, H, W, C), to `out`, for `Embedded`.

    They are copies of `evenly_spread` images, and each kind and severity is a split, see `corrupted_split`.
    """
    model.to(device)
    chosen = images[evenly_spread(len(images), config.corrupted_images)]
    for corruption, severity in itertools.product(config.corruptions, config.severities):
        corrupted = corrupt(chosen, corruption, severity, seed)
        write_features(out, corrupted_split(corruption, severity), *features_and_bits(model, corrupted, device))


def features_and_bits(model: GCRL, images: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray | None]:
    """Features float32 (N, D) and bits per dimension float64 (N,), or None without a decoder, of uint8 (N, H, W, C)."""
    features, nll = encode_images(model, images, device)
    return features.numpy(), None if nll is None else in_bits_per_dim(nll, images)


def in_bits_per_dim(nll: torch.Tensor, images: np.ndarray) -> np.ndarray:
    """Nats a pixel (N,) of `images` (N, H, W, C) as bits per dimension."""
    return (nll / (np.log(2) * images.shape[3])).numpy()
