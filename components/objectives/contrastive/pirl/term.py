"""PIRL: an image and its jigsaw look alike (Misra and van der Maaten 2020, arXiv 1912.01991, equations 3 to 5).

What we changed: the shuffled tiles are laid out as one image and encoded in one pass, where the paper encodes each tile
by itself and has a head for their concatenation; so one projection head serves both. As in the authors' code, a
cross-entropy among the memory's images stands in place of noise-contrastive estimation; by default among all of them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from components.model.gcrl import GCRL
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, projection_shape, view_accuracy
from components.objectives.contrastive.pirl import PIRLConfig
from components.objectives.parts.bank import MemoryBank, random_directions


class PIRL(ContrastiveTerm[PIRLConfig]):
    """View 0 is the image, view 1 its jigsaw; both must find the image in a memory bank of what view 0 was before.

    Owns the bank, one vector an image of the training set, at first random.
    """

    def __init__(self, config: PIRLConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.bank = MemoryBank(random_directions(len(data.images), projection_shape(model)[1]), config.momentum)

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """The order (images, grid²) of each image's tiles."""
        return torch.rand(images, self.config.grid**2, generator=generator, device=generator.device).argsort(1)

    def alter(self, views: Tensor, drawn: Tensor | None) -> Tensor:
        assert drawn is not None
        return torch.stack([views[0], shuffle_tiles(views[1], drawn)])

    def forward(self, batch: Batch) -> Loss:
        z, c, memory = batch.projections, self.config, self.bank.rows
        own, others = memory[batch.images], torch.arange(len(memory), device=z.device)
        if c.negatives is not None:
            others = torch.randint(len(memory), (c.negatives,), generator=batch.generator, device=z.device)
            memory = memory[others]
        itself = batch.images[:, None] == others
        image, jigsaw = (found_in_memory(view, own, memory, itself, c.temperature) for view in z)
        self.bank.remember(batch.images, z[0].float())
        losses = {"image_loss": image.detach(), "jigsaw_loss": jigsaw.detach()}
        loss = c.jigsaw_weight * jigsaw + (1 - c.jigsaw_weight) * image
        return loss, {**losses, "contrastive_accuracy": view_accuracy(z)}

    def after_step(self, model: GCRL, progress: float) -> None:
        self.bank.after_step()


def found_in_memory(projections: Tensor, own: Tensor, memory: Tensor, itself: Tensor, temperature: float) -> Tensor:
    """Mean over images of −log exp(m·z/τ) / (exp(m·z/τ) + Σ_n exp(n·z/τ)), n being other images; float32 scalar.

    Args:
        projections: z, L2-normalised (B, P).
        own: m, what is remembered of each image (B, P).
        memory: n, what is remembered of K images (K, P).
        itself: where one of these is the image itself (B, K), and does not count.
        temperature: τ > 0.
    """
    z = projections.float()
    negative = (z @ memory.T / temperature).masked_fill(itself, float("-inf")).logsumexp(1)  # (B,)
    return F.softplus(negative - (z * own).sum(1) / temperature).mean()


def shuffle_tiles(images: Tensor, order: Tensor) -> Tensor:
    """Images (b, C, H, W) whose tile i, in raster order, is what was tile order[:, i]; order (b, grid²)."""
    grid = round(order.shape[1] ** 0.5)
    tiles = images.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))  # (b, C, grid, h, grid, w)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (b, grid², C, h, w)
    tiles = tiles[torch.arange(len(order), device=order.device)[:, None], order]
    return tiles.unflatten(1, (grid, grid)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
