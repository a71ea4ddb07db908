"""AMDIM: a view's features know each part of another view, at several depths (Bachman, Hjelm and Buchwalter 2019, arXiv
1906.00910). Without `across_views` it is the local Deep InfoMax that it comes from: they know the parts of their own
view (Hjelm et al. 2019, arXiv 1808.06670; the estimator is InfoNCE).

What we changed: a part is a position of the causal encoder, so that at a block's exit it has seen the patches up to its
own, where a convolution sees those around it. Of its own view that is too much: all parts have seen the first patches,
and features that know these, and nothing else of the image, find them all. So Deep InfoMax reads its parts before the
first block, where each is a patch and its place. Scores are cosines over a temperature, where AMDIM clips and penalises
inner products. Predictions go from the features at the encoder's exit alone, not from one depth's parts to another's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, projection_shape, view_accuracy
from components.objectives.contrastive.dim import DIMConfig


class DIM(ContrastiveTerm[DIMConfig]):
    """A view's projection must tell the parts of its image from those of all others of the batch.

    Owns a head for the parts at each of the blocks' exits.
    """

    def __init__(self, config: DIMConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        (width, size), features = projection_shape(model), model.feature_size
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, size, bias=False))
            for _ in config.blocks
        )

    def represent(self, model: GCRL, tokens: Tensor) -> Tensor:
        """Features, then at each block's exit all positions that have seen a patch, normalised: (n, 1 + U·T, D)."""
        x, parts = model.embed(tokens), []
        for number, block in enumerate([nn.Identity(), *model.encoder.blocks]):
            x = block(x)
            if number in self.config.blocks:
                parts.append(F.layer_norm(x[:, 1:], x.shape[-1:]).float())
        return torch.cat([model.pool(x)[:, None], *parts], 1)

    def pooled(self, represented: Tensor) -> Tensor:
        return represented[..., 0, :]

    def forward(self, batch: Batch) -> Loss:
        z, parts = batch.projections, batch.features[:, :, 1:].chunk(len(self.heads), 2)
        views = range(len(z))
        pairs = [(v, w) for v in views for w in views if (v != w) == self.config.across_views]
        losses = []
        for head, part in zip(self.heads, parts, strict=True):
            local = F.normalize(head(part).float(), dim=-1)  # (V, B, T, P)
            losses += [local_global(z[v], local[w], self.config.temperature) for v, w in pairs]
        return torch.stack(losses).mean(), {"contrastive_accuracy": view_accuracy(z)}


def local_global(projections: Tensor, parts: Tensor, temperature: float) -> Tensor:
    """Mean over images i and their parts t of −log exp(z_i·l_it/τ) / (exp(z_i·l_it/τ) + Σ_{j≠i,s} exp(z_i·l_js/τ));
    float32 scalar.

    Args:
        projections: z, L2-normalised (B, P).
        parts: l, L2-normalised (B, T, P).
        temperature: τ > 0.
    """
    scores = torch.einsum("ip,jtp->ijt", projections.float(), parts) / temperature  # (B, B, T)
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)[..., None]
    negative = scores.masked_fill(itself, float("-inf")).flatten(1).logsumexp(1)  # (B,)
    positive = scores.diagonal().T  # (B, T)
    return F.softplus(negative[:, None] - positive).mean()
