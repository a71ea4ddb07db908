"""RotNet: which way up is it? (Gidaris, Singh and Komodakis 2018, arXiv 1803.07728, equations 2 and 3).

What we changed: the four rotated copies of an image are augmented each on its own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, feature_size
from components.objectives.predictive.rotation import RotationConfig


class Rotation(ContrastiveTerm[RotationConfig]):
    """View r of an image is turned by r quarters; a linear classifier on its features, which the term owns, tells r."""

    def __init__(self, config: RotationConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.classifier = nn.Linear(feature_size(model), config.views)

    def alter(self, views: Tensor, drawn: Tensor | None) -> Tensor:
        return torch.stack([torch.rot90(view, quarters, (2, 3)) for quarters, view in enumerate(views)])

    def forward(self, batch: Batch) -> Loss:
        logits = self.classifier(batch.features.float())  # (4, B, 4)
        turned = torch.arange(len(logits), device=logits.device)[:, None].expand(-1, logits.shape[1])
        loss = F.cross_entropy(logits.flatten(0, 1), turned.flatten())
        return loss, {"rotation_accuracy": (logits.argmax(2) == turned).float().mean()}
