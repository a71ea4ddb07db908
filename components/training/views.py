"""What a step sees: the augmented views of its batch, and whatever else is drawn at random for them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.data.augment import apply, draw
from components.data.config import AugmentationConfig
from components.model.gcrl import GCRL
from components.model.tokens import to_unit
from components.objectives.objective import Objective
from components.training.distributed import Ranks


@dataclass(frozen=True)
class Views:
    """V views of b images: [v, i] is view v of image i."""

    tokens: Tensor  # (V, b, T, S, ...)
    condition: Tensor  # (L, b, A), the augmentation's parameters of the first L, those that the generative term scores
    drawn: Tensor | None = None  # (L, b, ...), what that term drew for them

    def split(self, parts: int) -> list["Views"]:
        """The same views in parts, each with all views of an equal share of the images."""
        drawn = [None] * parts if self.drawn is None else self.drawn.chunk(parts, 1)
        chunks = zip(self.tokens.chunk(parts, 1), self.condition.chunk(parts, 1), drawn, strict=True)
        return [Views(*chunk) for chunk in chunks]


@torch.no_grad()
def draw_views(
    model: GCRL,
    objective: Objective,
    pixels: Tensor,
    views: int,
    augmentation: AugmentationConfig,
    generator: torch.Generator,
    ranks: Ranks,
    finer: Tensor | None = None,
) -> Views:
    """Independent random views of pixels uint8 (b, H, W, C), a process's share of the batch, as the contrastive term
    alters them, and what the generative term draws for those that it scores. So many `views` of an image, or as many as
    the objective asks for. Crops are taken from `finer` (b, S, S, C), the same images with more pixels, where given.

    The numbers are drawn for the whole batch: what an image gets does not depend on how many processes there are.
    Views are quantised again, so that the likelihood scores whole tokens.
    """
    b, views = len(pixels), objective.views(views)
    batch = b * ranks.size
    parameters = draw(augmentation, views * batch, pixels.shape[3], generator)
    if ranks.size > 1:
        everyone = torch.arange(views * batch, device=pixels.device)
        parameters = parameters.of(everyone.view(views, ranks.size, b)[:, ranks.rank].flatten())
    images = to_unit(pixels).repeat(views, 1, 1, 1)  # (V·b, C, H, W)
    images = apply(images, parameters, augmentation.padding, finer)
    if objective.contrastive is not None:
        altering = objective.contrastive.draw(batch, generator)
        altering = None if altering is None else altering[ranks.share(batch)]
        images = objective.contrastive.alter(images.unflatten(0, (views, b)), altering).flatten(0, 1)
    tokens = model.tokenizer(images)
    # drawn last: a term that draws nothing leaves all other draws as they are
    drawn = objective.draw(objective.scored_views, batch, generator)
    drawn = None if drawn is None else drawn[:, ranks.share(batch)]
    condition = parameters.condition.unflatten(0, (views, b))[: objective.scored_views]
    return Views(tokens.unflatten(0, (views, b)), condition, drawn)
