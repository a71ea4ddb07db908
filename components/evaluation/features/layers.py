"""Pooled features after every block of the model: where in the stack do the classes lie?"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from components.data.prepared import Prepared
from components.errors import UserError
from components.evaluation.config import EmbedConfig
from components.evaluation.features.store import LAYERS, evenly_spread
from components.files import atomic_file
from components.model.gcrl import GCRL
from components.model.tokens import to_unit


def embed_layers(model: GCRL, prepared: Prepared, config: EmbedConfig, out: Path, device: torch.device) -> None:
    """Write `layers/<split>.<part>.npy`, float16 (layers, N, D), to `out` for train, val and test.

    The part is encoder or, for a variant with a likelihood, decoder. `layers/<split>.rows.npy` (N,) holds the images'
    rows in the split: `evenly_spread` ones, and the first of each class, because a probe needs every class. Nothing is
    written of a pretrained encoder.

    Raises UserError where a value is NaN or too large for 16 bits.
    """
    if not config.layer_images or model.pretrained is not None:
        return
    model.to(device)
    for split in ("train", "val", "test"):
        images, (_, firsts) = prepared.images(split), np.unique(prepared.labels(split), return_index=True)
        rows = np.union1d(evenly_spread(len(images), config.layer_images), firsts)
        _save(out / LAYERS / f"{split}.rows.npy", rows)
        for part, features in layer_features(model, images[rows], device).items():
            if not np.isfinite(features).all():
                raise UserError(
                    f"{out}: the {part}'s features of split {split!r} hold values that are NaN or beyond 65,504. "
                    "The weights are broken or training diverged: train again with a lower learning rate."
                )
            _save(out / LAYERS / f"{split}.{part}.npy", features)


@torch.no_grad()
def layer_features(
    model: GCRL, images: np.ndarray, device: torch.device, batch_size: int = 256
) -> dict[str, np.ndarray]:
    """Part → features float16 (layers, N, D) after each of its blocks, of uint8 `images` (N, H, W, C), not augmented.

    Each is pooled as the model's features are, the mean over normalised positions, with the part's own last
    normalisation: after the encoder's last block they are the model's features. The decoder's positions are those that
    predict: the last one, which has seen every patch, is not among them.
    """
    batches: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
        for part, layers in _layers(model, model.tokenizer(to_unit(pixels))):
            batches.setdefault(part, []).append(torch.stack(layers).half().cpu().numpy())
    return {part: np.concatenate(found, axis=1) for part, found in batches.items()}


def _layers(model: GCRL, tokens: Tensor) -> Iterator[tuple[str, list[Tensor]]]:
    """Part and its pooled features (B, D) after each block, for tokens (B, T, S, ...)."""

    def pooled(outputs: Iterator[Tensor], norm: nn.Module) -> tuple[Tensor, list[Tensor]]:
        layers = []
        for output in outputs:
            layers.append(norm(output).float().mean(1))
        return output, layers

    encoded, layers = pooled(model.encoder.after_each_block(model.embed(tokens)), model.norm)  # (B, T + 1, D)
    yield "encoder", layers
    if model.decoder is not None and model.decoder_norm is not None:
        outputs = model.decoder.after_each_block(model.decoder_input(encoded[:, :-1]))
        yield "decoder", pooled(outputs, model.decoder_norm)[1]


def _save(path: Path, values: np.ndarray) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)
