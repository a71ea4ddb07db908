"""CMC: what lightness and colours have in common (Tian, Krishnan and Isola 2020, arXiv 1906.05849, equations 2 and 8).

What we changed: one encoder reads L* and a*b*, each as an RGB image without the other, where the paper has one for each
and joins their features. So that it also learns whole images, which are what it is used for, the full colours are a
third view: of the paper's ways to pair more than two views, the full graph. Negatives are the other images of the
batch, where the paper has 16,384 from a memory bank, by noise-contrastive estimation. And the three views are augmented
apart, where the paper takes L* and a*b* from one augmented image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, view_accuracy
from components.objectives.contrastive.cmc import CMCConfig
from components.objectives.parts.colorspace import from_lab, to_lab

MIDDLE = 50.0  # the lightness of a view without one


class CMC(ContrastiveTerm[CMCConfig]):
    """View 0 is the image, view 1 its lightness, view 2 its colours; each must find the other two of its image."""

    def __init__(self, config: CMCConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)

    def alter(self, views: Tensor, drawn: Tensor | None) -> Tensor:
        return torch.stack([views[0], lightness(views[1]), colours(views[2])])

    def forward(self, batch: Batch) -> Loss:
        z = batch.projections
        pairs = [(v, w) for v in range(len(z)) for w in range(len(z)) if v != w]
        loss = torch.stack([find(z[v], z[w], self.config.temperature) for v, w in pairs]).mean()
        return loss, {"contrastive_accuracy": view_accuracy(z)}


def find(anchors: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Mean over images i of −log exp(a_i·o_i/τ) / Σ_k exp(a_i·o_k/τ); float32 scalar.

    Args:
        anchors, others: two views, L2-normalised (B, P).
        temperature: τ > 0.
    """
    scores = anchors.float() @ others.float().T / temperature
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def lightness(images: Tensor) -> Tensor:
    """Images (b, 3, H, W) in [0, 1] without their colours."""
    lab = to_lab(images)
    return from_lab(torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], 1))


def colours(images: Tensor) -> Tensor:
    """Images (b, 3, H, W) in [0, 1] without their lightness, as far as a screen can show it."""
    lab = to_lab(images)
    return from_lab(torch.cat([torch.full_like(lab[:, :1], MIDDLE), lab[:, 1:]], 1))
