"""MoCo v3: momentum contrast within the batch (Chen, Xie and He 2021, arXiv 2104.02057, algorithm 1).

What we changed: the predictor reads L2-normalised projections, and is as wide inside as the projection head; with more
than two views the loss is the mean over all ordered pairs, times two. The patch embedding, which the paper freezes to
keep the training of large vision transformers stable, is trained like all else.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, projection_shape, view_accuracy
from components.objectives.contrastive.moco_v3 import MoCoV3Config
from components.objectives.parts.momentum import MomentumEncoder


class MoCoV3(ContrastiveTerm[MoCoV3Config]):
    """InfoNCE between a predictor's queries and a momentum encoder's keys of the same batch, without a queue.

    Owns the momentum encoder, whose momentum grows along a cosine to 1, and the predictor, which is trained.
    """

    observes = True

    def __init__(self, config: MoCoV3Config, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        width, size = projection_shape(model)
        self.encoder = MomentumEncoder(model)
        self.predictor = nn.Sequential(
            nn.Linear(size, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, size, bias=False),
            nn.BatchNorm1d(size, affine=False),
        )

    def observe(self, tokens: Tensor) -> Tensor:
        return self.encoder.features(tokens)

    def forward(self, batch: Batch) -> Loss:
        assert batch.observed is not None
        z = batch.projections
        queries = F.normalize(self.predictor(z.flatten(0, 1).float()), dim=1).unflatten(0, z.shape[:2])
        loss = in_batch_info_nce(queries, self.encoder.project(batch.observed), self.config.temperature)
        return loss, {"contrastive_accuracy": view_accuracy(z)}

    def after_step(self, model: GCRL, progress: float) -> None:
        rest = (1 - self.config.momentum) * (1 + math.cos(math.pi * progress)) / 2
        self.encoder.follow(model, 1 - rest)


def in_batch_info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Twice the mean over all ordered pairs of views, v and w, of 2τ · cross-entropy of q_v against all keys k_w of the
    batch; float32 scalar. With two views: ctr(q₁, k₂) + ctr(q₂, k₁).

    Args:
        queries, keys: L2-normalised (V, B, P); no gradient goes to the keys.
        temperature: τ > 0; the factor 2τ makes the gradient's size nearly independent of it.
    """
    q, k = queries.float(), keys.float()
    images = torch.arange(q.shape[1], device=q.device)
    pairs = [(v, w) for v in range(len(q)) for w in range(len(q)) if v != w]
    losses = [F.cross_entropy(q[v] @ k[w].T / temperature, images) for v, w in pairs]
    return 4 * temperature * torch.stack(losses).mean()
