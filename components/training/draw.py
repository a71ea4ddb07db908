"""Images that show what the decoder has learned: drawn from nothing, and completed from their upper half."""

import numpy as np
import torch

from components.model.gcrl import GCRL
from components.model.sampling import sample
from components.model.tokens import to_unit

SAMPLES = 64
COMPLETED = 16


def samples(model: GCRL, seed: int) -> np.ndarray:
    """Images drawn from the model, uint8 (64, H, W, C)."""
    tokens = sample(model, SAMPLES, torch.Generator().manual_seed(seed))
    return _to_pixels(model, tokens)


def completions(model: GCRL, images: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Validation images (N, H, W, C), their upper halves, and two completions of each; uint8 (16, H, W, C) each."""
    originals = np.array(images[:COMPLETED])
    tokens = model.tokenizer(to_unit(torch.from_numpy(originals)).to(model.start.device))
    patch, rows = model.tokenizer.patch_size, model.image_size // model.tokenizer.patch_size
    given = tokens[:, : rows // 2 * rows]
    generator = torch.Generator().manual_seed(seed)
    halves = originals.copy()
    halves[:, rows // 2 * patch :] = 128
    drawn = [_to_pixels(model, sample(model, len(originals), generator, given=given)) for _ in range(2)]
    return {"original": originals, "given": halves, "completed": drawn[0], "again": drawn[1]}


def _to_pixels(model: GCRL, tokens: torch.Tensor) -> np.ndarray:
    return (model.tokenizer.colours(tokens) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
