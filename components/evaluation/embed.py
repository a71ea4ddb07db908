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
        features, nll = encode_images(model, prepared.images(split), device)
        bits = None
        if nll is not None:
            bits = (nll / (np.log(2) * prepared.channels)).numpy()  # (N,); a token holds the channels of one pixel
            metrics[f"bits_per_dim/{split}"] = float(bits.mean())
        write_features(out, split, features.numpy(), bits)
        if split == "val":
            metrics |= feature_health(features)
    return metrics
