"""MoCo v2: contrast with a queue of keys (He et al. 2020, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297).

What we changed: every view is a query against the keys of every other view of its image, as in the authors' CIFAR
notebook and in MoCo v3, where MoCo v2 takes one view as query and the other as key. The projection head has a batch
norm and a GELU, as for the other terms, where MoCo v2's has a ReLU and no norm. MoCo shuffles images among processes,
so that a query's batch statistics and its key's are of other images. Our encoder has no batch norm, but the head's
statistics are of the same images on both sides, and nothing is done about it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, projection_shape, view_accuracy
from components.objectives.contrastive.moco import MoCoConfig
from components.objectives.parts.bank import random_directions
from components.objectives.parts.momentum import MomentumEncoder


class MoCo(ContrastiveTerm[MoCoConfig]):
    """InfoNCE between queries and a momentum encoder's keys; negatives are `queue_size` keys of earlier batches.

    Owns the momentum encoder and the queue, whose first keys are random directions.
    """

    observes = True

    def __init__(self, config: MoCoConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.encoder = MomentumEncoder(model)
        self.register_buffer("queue", random_directions(config.queue_size, projection_shape(model)[1]))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))  # where the oldest key is
        self.queue: Tensor
        self.next: Tensor

    def observe(self, tokens: Tensor) -> Tensor:
        return self.encoder.features(tokens)

    def forward(self, batch: Batch) -> Loss:
        assert batch.observed is not None
        keys = self.encoder.project(batch.observed)
        loss = info_nce(batch.projections, keys, self.queue, self.config.temperature)
        self._latest = keys.flatten(0, 1)
        return loss, {"contrastive_accuracy": view_accuracy(batch.projections)}

    def after_step(self, model: GCRL, progress: float) -> None:
        self.encoder.follow(model, self.config.momentum)
        size = len(self.queue)
        keys = self._latest[-size:]
        self.queue[(self.next + torch.arange(len(keys), device=keys.device)) % size] = keys
        self.next += len(keys)
        self.next %= size


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Mean over all ordered pairs of views of an image, a query q and the other's key k, of
    −log exp(q·k/τ) / (exp(q·k/τ) + Σ_n exp(q·n/τ)) (MoCo, equation 1); float32 scalar.

    Args:
        queries, keys: L2-normalised (V, B, P); no gradient goes to the keys.
        negatives: L2-normalised (K, P).
        temperature: τ > 0.
    """
    q, k = queries.float(), keys.float()
    positive = torch.einsum("vbp,wbp->vwb", q, k) / temperature
    negative = (q @ negatives.float().T / temperature).logsumexp(-1)  # (V, B)
    losses = F.softplus(negative[:, None] - positive)  # (V, V, B)
    others = ~torch.eye(len(q), dtype=torch.bool, device=q.device)
    return losses[others].mean()
