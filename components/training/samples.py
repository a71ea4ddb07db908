"""Images that show what the decoder has learned: drawn from nothing, and completed from a part of them."""

import numpy as np
import torch

from components.model.gcrl import GCRL
from components.model.sampling import sample
from components.model.tokens import to_unit

SAMPLES = 32
COMPLETED = 16
TEMPERATURE, TOP_K = 0.8, 40  # fewer stray values, less variety
SHARPENED = f"temperature {TEMPERATURE}, top-k {TOP_K}"


def samples(model: GCRL, seed: int) -> dict[str, np.ndarray]:
    """Images drawn from the model's distribution and from a sharpened one, uint8 (32, H, W, C) each."""
    generator = torch.Generator().manual_seed(seed)
    drawn = sample(model, SAMPLES, generator)
    sharp = sample(model, SAMPLES, generator, TEMPERATURE, TOP_K)
    return {"sampled": _to_pixels(model, drawn), f"sampled, {SHARPENED}": _to_pixels(model, sharp)}


def completions(model: GCRL, images: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Validation images (N, H, W, C), their upper halves, and three completions of each, the last one sharpened; uint8
    (16, H, W, C) each. A model that takes patches in any order is given all but the middle instead, one of the
    likelihood of reduced images sees and completes those."""
    originals = np.array(images[:COMPLETED])
    tokens = model.scored_tokens(model.tokenizer(to_unit(torch.from_numpy(originals)).to(model.start.device)))
    if model.reduced is not None:
        originals = _to_pixels(model, tokens)
    hidden = _hidden_patches(model)
    order = hidden.flatten().int().argsort(stable=True)  # what is given, then the rest
    given = tokens[:, order[: int((~hidden).sum())].to(tokens.device)]
    order_told = None if model.next_position is None else order
    generator = torch.Generator().manual_seed(seed)
    parts, patch = originals.copy(), model.scored.tokenizer.patch_size
    parts[:, hidden.repeat_interleave(patch, 0).repeat_interleave(patch, 1).numpy()] = 128

    def complete(temperature: float = 1.0, top_k: int | None = None) -> np.ndarray:
        return _to_pixels(model, sample(model, len(originals), generator, temperature, top_k, given, order_told))

    drawn = {"completed": complete(), "again": complete(), SHARPENED: complete(TEMPERATURE, TOP_K)}
    return {"original": originals, "given": parts, **drawn}


def _hidden_patches(model: GCRL) -> torch.Tensor:
    """Which patches (rows, rows) are to be completed: the middle where the model can, otherwise the lower half."""
    rows = model.scored.image_size // model.scored.tokenizer.patch_size
    hidden = torch.zeros(rows, rows, dtype=torch.bool)
    if model.next_position is not None and rows > 2:
        edge = max(1, rows // 4)
        hidden[edge:-edge, edge:-edge] = True
    else:
        hidden[rows // 2 :] = True
    return hidden


def _to_pixels(model: GCRL, tokens: torch.Tensor) -> np.ndarray:
    return (model.scored.tokenizer.colours(tokens) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
