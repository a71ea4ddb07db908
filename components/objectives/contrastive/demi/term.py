"""DEMI: mutual information in two steps (Sordoni et al. 2021, arXiv 2106.13401).

A view x contains what its part x′ tells of another view y, and more: I(x; y) = I(x′; y) + I(x; y | x′). Each of the two
is small, so that a contrastive bound, which cannot exceed the logarithm of the batch, is the tighter. The second takes
its negatives from p(y | x′), approximated by the batch's, weighed by how likely the first step holds them to be.

What we changed: x′ is a crop of x brought back to its size. The critics are cosines over a temperature: of the first
step, of the projections of x′ and y; of the second, of x's projection and y through a head of its own.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, fresh_head, view_accuracy
from components.objectives.contrastive.demi import DEMIConfig
from components.objectives.parts.cropping import crop


class DEMI(ContrastiveTerm[DEMIConfig]):
    """View 0 is x, view 1 is y, view 2 is x′, a random crop of view 0. Owns the head of y in the second step."""

    def __init__(self, config: DEMIConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.head = fresh_head(model)

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Where each image's crop lies (images, 2), x and y: 0 at the left or upper edge, 1 at the other."""
        return torch.rand(images, 2, generator=generator, device=generator.device)

    def alter(self, views: Tensor, drawn: Tensor | None) -> Tensor:
        assert drawn is not None
        return torch.stack([views[0], views[1], crop(views[0], drawn, self.config.crop_ratio)])

    def forward(self, batch: Batch) -> Loss:
        x, y, part = batch.projections.float()
        tau = self.config.temperature
        likely = part @ y.T / tau  # (B, B)
        first = F.cross_entropy(likely, torch.arange(len(likely), device=likely.device))
        conditional_y = F.normalize(self.head(batch.features[1]).float(), dim=1)
        second = conditional_info_nce(x @ conditional_y.T / tau, likely)
        losses = {"part_loss": first.detach(), "conditional_loss": second.detach()}
        return first + second, {**losses, "contrastive_accuracy": view_accuracy(batch.projections)}


def conditional_info_nce(scores: Tensor, likely: Tensor) -> Tensor:
    """Mean over images i of −log exp(φ_ii) / (exp(φ_ii) + (B − 1) Σ_k≠i w_ik exp(φ_ik)), with the importance weights
    w_i = softmax_k≠i(ψ_ik), which carry no gradient; float32 scalar. log B minus it estimates I(x; y | x′) from below.

    Args:
        scores: φ(x_i, y_k) (B, B).
        likely: ψ(x′_i, y_k) (B, B).
    """
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    log_weights = likely.detach().masked_fill(itself, float("-inf")).log_softmax(1)
    negative = (log_weights + scores).logsumexp(1) + math.log(len(scores) - 1)  # (B,)
    return F.softplus(negative - scores.diagonal()).mean()
