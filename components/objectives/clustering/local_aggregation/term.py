"""Local aggregation: draw images to their close neighbours, among all that are near (Zhuang, Zhai and Yamins 2019,
arXiv 1903.12355, equations 1 to 4).

A memory bank holds a vector an image. The background neighbours B of a view are the nearest in the bank; the close
ones C are those that share a cluster with its image in at least one of several k-means clusterings of the bank. The
loss is −log P(C ∩ B) / P(B), P being the softmax of instance discrimination. As there, at first every image is its
own only close neighbour.

What we changed: there is no separate first phase with another loss, and an image always is among its own background
neighbours, so that the ratio is never of nothing.
"""

import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, projection_shape, view_accuracy
from components.objectives.clustering.local_aggregation import LocalAggregationConfig
from components.objectives.parts.bank import MemoryBank, random_directions
from components.objectives.parts.clusters import cluster


class LocalAggregation(ContrastiveTerm[LocalAggregationConfig]):
    """Owns the bank, at first random, and each image's cluster in every clustering, at first one an image."""

    def __init__(self, config: LocalAggregationConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        images = len(data.images)
        self.bank = MemoryBank(random_directions(images, projection_shape(model)[1]), config.momentum)
        self.register_buffer("clusters", torch.arange(images).repeat(config.clusterings, 1))  # (H, N)
        self.register_buffer("due", torch.tensor(config.instance_epochs * images))  # images until the next clustering
        self.register_buffer("seed", torch.randint(2**31, ()))  # of the next clustering
        self.clusters: Tensor
        self.due: Tensor
        self.seed: Tensor

    def forward(self, batch: Batch) -> Loss:
        z, config = batch.projections, self.config
        loss, close = local_aggregation(
            z, self.bank.rows, batch.images, self.clusters, config.background_neighbours, config.temperature
        )
        self.bank.remember(batch.images, z.float().mean(0))
        self.due -= len(batch.images)
        return loss, {"close_neighbours": close, "contrastive_accuracy": view_accuracy(z)}

    def after_step(self, model: GCRL, progress: float) -> None:
        self.bank.after_step()
        if self.due > 0:
            return
        bank = self.bank.rows.cpu().numpy()
        for clusters in self.clusters:
            found = cluster(bank, lambda rows: rows, self.config.clusters, int(self.seed), None)
            clusters.copy_(torch.from_numpy(found))
            self.seed += 1
        self.due += self.config.recluster_epochs * len(bank)


def local_aggregation(
    projections: Tensor, bank: Tensor, images: Tensor, clusters: Tensor, background_neighbours: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Mean over views of image i of −log Σ_C∩B exp(v_j·f/τ) / Σ_B exp(v_j·f/τ), and the mean size of C ∩ B; float32.

    Args:
        projections: f, L2-normalised (V, B, P).
        bank: v, what is remembered of each image of the training set (N, P).
        images: i, their indices (B,).
        clusters: of each image in each clustering (H, N); close are the images that share one with i.
        background_neighbours: how many images of the bank are neighbours, the nearest to f, image i always among them.
        temperature: τ > 0.
    """
    logits = projections.float() @ bank.T / temperature  # (V, B, N)
    own = images.expand(len(projections), -1)[..., None]  # (V, B, 1)
    near = logits.detach().topk(min(background_neighbours, len(bank)), dim=2).indices  # (V, B, K), nearest first
    near[..., -1:] = torch.where((near == own).any(2, keepdim=True), near[..., -1:], own)
    close = (clusters[:, near] == clusters[:, own]).any(0)  # (V, B, K)
    scores = logits.gather(2, near)
    losses = scores.logsumexp(2) - scores.masked_fill(~close, float("-inf")).logsumexp(2)
    return losses.mean(), close.sum(2).float().mean()
