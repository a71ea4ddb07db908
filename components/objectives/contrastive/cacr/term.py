"""CACR: contrastive attraction and contrastive repulsion (Zheng et al. 2021, arXiv 2105.03746, section 3).

What we changed: repulsion goes in both directions of each pair of views, where the authors' code takes one. As in that
code for CIFAR, the weights carry a gradient, and each view repels the other images' views of one other view at a time.
"""

import torch
from torch import Tensor

from components.objectives.base import Batch, ContrastiveTerm, Loss, view_accuracy
from components.objectives.contrastive.cacr import CACRConfig


class CACR(ContrastiveTerm[CACRConfig]):
    """Attracts an image's own views, the farther the more; repels other images' views, the nearer the more."""

    def forward(self, batch: Batch) -> Loss:
        c = self.config
        attraction, repulsion = cacr(batch.projections, c.alpha, c.beta, c.tau_positive, c.tau_negative)
        metrics = {"attraction": attraction.detach(), "repulsion": repulsion.detach()}
        return attraction + repulsion, {**metrics, "contrastive_accuracy": view_accuracy(batch.projections)}


def cacr(
    projections: Tensor, alpha: float, beta: float, tau_positive: float, tau_negative: float
) -> tuple[Tensor, Tensor]:
    """Attraction, Σ_k softmax_k(τ₊ d_k)·α d_k over the other views of an image, and repulsion,
    −Σ_j softmax_j(−τ₋ d_j)·β d_j over the other images of another view; d is the squared distance, both are means over
    queries (and pairs of views); float32 scalars.

    Args:
        projections: L2-normalised (V, B, P).
        alpha, beta: weights of the two.
        tau_positive, tau_negative: τ₊ and τ₋; 0 weighs all alike.
    """
    z = projections.float()
    views, images = z.shape[:2]
    distance = (2 - 2 * torch.einsum("vip,wjp->vwij", z, z)).clamp_min(0)  # (V, V, B, B)
    others = ~torch.eye(views, dtype=torch.bool, device=z.device)
    own = distance.diagonal(dim1=2, dim2=3)[others].view(views, views - 1, images)
    attraction = alpha * ((tau_positive * own).softmax(1) * own).sum(1).mean()
    itself = torch.eye(images, dtype=torch.bool, device=z.device)
    foreign = distance[others].masked_select(~itself).view(-1, images, images - 1)  # (V·(V − 1), B, B − 1)
    repulsion = -beta * ((-tau_negative * foreign).softmax(2) * foreign).sum(2).mean()
    return attraction, repulsion
