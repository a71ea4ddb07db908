"""Weights that a training starts from: those of a model that was trained on pictures of the same or another size."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from components.errors import UserError
from components.files import file_digest
from components.model.build import Architecture, differences, load_weights
from components.model.gcrl import GCRL

POSITIONS = {"position": 1, "reduced.position": 1, "next_position": 0}  # tokens before the grid of patches
# what the tensors' names and shapes say as well
MAY_DIFFER = {"image_size", "generative", "contrastive", "condition_on_augmentation", "orders", "scored_size"}
PALETTE = "tokenizer.palette"
KEY = "training.start_from"


@torch.no_grad()
def start_from(model: GCRL, architecture: Architecture, path: Path) -> dict[str, str]:
    """Give a model of this architecture the weights in a file; returns which these were, for the run's record.

    A model of another picture size has other positions: they are interpolated bicubically on the grid of patches, as
    vision transformers are fine-tuned at a higher resolution (Dosovitskiy et al. 2021, arXiv 2010.11929, section 3.2).
    Parts that this model lacks are left aside.

    Raises:
        UserError: no weights of this project, of another shape, in another palette, or without a part of this model.
    """
    source, found = load_weights(path)
    theirs, ours = source.state_dict(), model.state_dict()
    different = differences(architecture, found)
    both = PALETTE in ours and PALETTE in theirs and "channels" not in different
    if both and not torch.equal(ours[PALETTE], theirs[PALETTE]):
        raise UserError(
            f"{KEY}: {path} was trained on pictures of other colours, so that its tokens mean others. Start from a "
            "model whose model.likelihood is logistic_mixture or categorical: their tokens are pixel values."
        )
    may_differ = MAY_DIFFER if architecture.scored_size else MAY_DIFFER | {"scored_patch"}
    if other := [told for name, told in different.items() if name not in may_differ]:
        raise UserError(
            f"{KEY}: {path} is of another architecture: {'; '.join(other)}. Only sizes of pictures may differ."
        )
    if lacking := sorted({name.split(".")[0] for name in ours if name not in theirs and name != "other_orders"}):
        raise UserError(
            f"{KEY}: {path} has no {', '.join(lacking)}, which this variant needs: other terms of the objective "
            "trained it. Start from a variant that has them, as a hybrid has all."
        )
    for name, value in ours.items():
        if name in POSITIONS:
            value.copy_(resized_positions(theirs[name], len(value), POSITIONS[name]))
        elif name != "other_orders":  # drawn for this grid
            value.copy_(theirs[name])
    return {"start_from": str(path), "start_sha256": file_digest(path)}


def resized_positions(positions: Tensor, length: int, before: int) -> Tensor:
    """Positions (before + t², D) of a square grid as those (length, D) of another, behind the same tokens before it."""
    if len(positions) == length:
        return positions
    old, new = (round((n - before) ** 0.5) for n in (len(positions), length))
    grid = positions[before:].T.unflatten(1, (old, old))[None]  # (1, D, t, t)
    grid = F.interpolate(grid, (new, new), mode="bicubic", antialias=True)
    return torch.cat([positions[:before], grid[0].flatten(1).T])
