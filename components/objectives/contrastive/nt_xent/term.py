"""NT-Xent, the normalised temperature-scaled cross-entropy of SimCLR (Chen et al. 2020, arXiv 2002.05709, eq. 1).

What we changed: an image may have more than two views; the loss is then the mean over all ordered pairs of them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from components.objectives.base import Batch, ContrastiveTerm, Loss, view_accuracy
from components.objectives.contrastive.nt_xent import NTXentConfig


class NTXent(ContrastiveTerm[NTXentConfig]):
    """Views of an image attract each other, all others of the batch repel."""

    def forward(self, batch: Batch) -> Loss:
        views = len(batch.projections)
        loss = nt_xent(batch.projections.flatten(0, 1), self.config.temperature, views)
        return loss, {"contrastive_accuracy": view_accuracy(batch.projections)}


def nt_xent(projections: Tensor, temperature: float, views: int = 2) -> Tensor:
    """Mean over all ordered pairs of views z, z⁺ of an image of −log exp(z·z⁺/τ) / Σ_a exp(z·z_a/τ); float32 scalar.

    a runs over every view but z itself. With two views this is SimCLR's loss; with more it is SupCon's L_out (Khosla
    et al. 2020, arXiv 2004.11362, eq. 2) where each image is a class of its own.

    Args:
        projections: L2-normalised (V·B, P); rows i, B + i, 2B + i … are the views of image i.
        temperature: τ > 0.
        views: V ≥ 2.
    """
    z = projections.float()
    n = len(z)
    itself = torch.eye(n, dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(itself, float("-inf"))  # (V·B, V·B)
    row = torch.arange(n, device=z.device)
    losses = [F.cross_entropy(similarity, row.roll(v * n // views)) for v in range(1, views)]
    return torch.stack(losses).mean()
