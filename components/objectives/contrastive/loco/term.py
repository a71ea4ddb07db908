"""LoCo: local contrastive losses on overlapping blocks (Xiong, Ren and Urtasun 2020, arXiv 2008.01342, section 3).

A unit is `overlap` + 1 neighbouring blocks of the encoder; the next one begins a block later. Each ends in a projection
head and a contrastive loss of its own, whose gradient stops where the unit begins. So a block hears of the losses of
the units that share it and of none further up. Without overlap that is Greedy InfoMax (Löwe et al. 2019, arXiv
1905.11786) with this loss; with all blocks in one unit, NT-Xent.

What we changed: a block is a transformer block instead of a ResNet stage, a head is the projection head's MLP alone,
and the loss is the mean over the units. A unit's activations are computed again in the backward pass, so that those of
one unit at a time are held.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, fresh_head, view_accuracy
from components.objectives.contrastive.loco import LoCoConfig
from components.objectives.contrastive.nt_xent.term import nt_xent


class LoCo(ContrastiveTerm[LoCoConfig]):
    """NT-Xent at the end of every unit. Owns the heads of all units but the last, whose head is the model's."""

    def __init__(self, config: LoCoConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        blocks = len(model.encoder.blocks)
        self.heads = nn.ModuleList(fresh_head(model) for _ in range(blocks - config.overlap - 1))

    def represent(self, model: GCRL, tokens: Tensor) -> Tensor:
        """Features (n, U, D) at the end of each unit; see `local_features`."""
        return local_features(model, tokens, self.config.overlap)

    def pooled(self, represented: Tensor) -> Tensor:
        return represented[..., -1, :]

    def forward(self, batch: Batch) -> Loss:
        z = batch.projections
        views, temperature = len(z), self.config.temperature
        ends = batch.features.flatten(0, 1).float()  # (V·B, U, D)
        local = [F.normalize(head(ends[:, unit]), dim=1) for unit, head in enumerate(self.heads)]
        losses = torch.stack([nt_xent(p, temperature, views) for p in (*local, z.flatten(0, 1))])
        return losses.mean(), {
            "first_unit_loss": losses[0].detach(),
            "last_unit_loss": losses[-1].detach(),
            "contrastive_accuracy": view_accuracy(z),
        }


def local_features(model: GCRL, tokens: Tensor, overlap: int) -> Tensor:
    """The pooled outputs (n, U, D) of U = blocks − overlap units of the encoder, for views (n, T, S, ...).

    Their values are the encoder's; a gradient reaches the blocks of its own unit alone, and the embedding where that is
    the first. The last is what the model calls the view's features.
    """
    blocks = list(model.encoder.blocks)
    begin = model.embed(tokens)
    ends = []
    for first in range(len(blocks) - overlap):
        begin, end = checkpoint(
            _through, begin, blocks[first : first + overlap + 1], use_reentrant=False, preserve_rng_state=False
        )
        begin = begin.detach()
        last = first + overlap + 1 == len(blocks)
        ends.append(model.pool(end) if last else F.layer_norm(end, end.shape[-1:]).float().mean(1))
    return torch.stack(ends, 1)


def _through(x: Tensor, blocks: list[nn.Module]) -> tuple[Tensor, Tensor]:
    """The outputs of the first and of the last of some blocks."""
    first = x = blocks[0](x)
    for block in blocks[1:]:
        x = block(x)
    return first, x
