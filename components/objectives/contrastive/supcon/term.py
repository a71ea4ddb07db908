"""SupCon: supervised contrastive learning (Khosla et al. 2020, arXiv 2004.11362, equation 2, L_out).

What we changed: an image without a label is a class of its own, as in SimCLR, so that a set with few labels can be
learned from.
"""

import numpy as np
import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, view_accuracy
from components.objectives.contrastive.supcon import SupConConfig


class SupCon(ContrastiveTerm[SupConConfig]):
    """Views of all images of a class attract each other, all others of the batch repel."""

    def __init__(self, config: SupConConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        labels = data.labels
        assert labels is not None
        classes = np.where(labels < 0, -1 - np.arange(len(labels)), labels)
        self.register_buffer("classes", torch.from_numpy(classes), persistent=False)  # (N,)
        self.classes: Tensor

    def forward(self, batch: Batch) -> Loss:
        loss = supcon(batch.projections, self.classes[batch.images], self.config.temperature)
        return loss, {"contrastive_accuracy": view_accuracy(batch.projections)}


def supcon(projections: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Mean over views i of −1/|P(i)| Σ_p∈P(i) log exp(z_i·z_p/τ) / Σ_a≠i exp(z_i·z_a/τ), where P(i) are the other views
    of i's class; float32 scalar.

    Args:
        projections: L2-normalised (V, B, P).
        classes: of the images (B,).
        temperature: τ > 0.
    """
    views = len(projections)
    z, y = projections.float().flatten(0, 1), classes.repeat(views)  # (V·B, P), (V·B,)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (y[:, None] == y) & ~itself
    similarity = z @ z.T / temperature
    log_share = similarity - similarity.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True)
    return -(log_share.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()
