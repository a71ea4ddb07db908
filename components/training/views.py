"""What a step sees: the augmented views of its batch, and whatever else is drawn at random for them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.data.augment import apply, draw
from components.data.config import AugmentationConfig
from components.model.gcrl import GCRL
from components.model.tokens import to_unit
from components.training.ranks import Ranks


@dataclass(frozen=True)
class Views:
    """V views of b images: [v, i] is view v of image i."""

    tokens: Tensor  # (V, b, T, S, ...)
    condition: Tensor  # (L, b, A), the augmentation's parameters of the first L, those whose likelihood is scored
    scored: Tensor | None = None  # (L, b, m), the patches whose likelihood is scored; None: all

    def split(self, parts: int) -> list["Views"]:
        """The same views in parts, each with all views of an equal share of the images."""
        scored = [None] * parts if self.scored is None else self.scored.chunk(parts, 1)
        chunks = zip(self.tokens.chunk(parts, 1), self.condition.chunk(parts, 1), scored, strict=True)
        return [Views(*chunk) for chunk in chunks]


def scored_patches(share: float, patches: int) -> int:
    """How many of a view's patches are scored: the nearest number to the share, at least one."""
    return max(1, round(share * patches))


@torch.no_grad()
def draw_views(
    model: GCRL,
    pixels: Tensor,
    views: int,
    augmentation: AugmentationConfig,
    generator: torch.Generator,
    ranks: Ranks,
    scored_views: int = 2,
    scored_share: float = 1.0,
) -> Views:
    """Independent random views of pixels uint8 (b, H, W, C), a process's share of the batch, and which patches of the
    first `scored_views` are scored, other ones for each view.

    The numbers are drawn for the whole batch: what an image gets does not depend on how many processes there are.
    Views are quantised again, so that the likelihood scores whole tokens.
    """
    b = len(pixels)
    drawn = draw(augmentation, views * b * ranks.size, pixels.shape[3], generator)
    if ranks.size > 1:
        everyone = torch.arange(views * b * ranks.size, device=pixels.device)
        drawn = drawn.of(everyone.view(views, ranks.size, b)[:, ranks.rank].flatten())
    images = to_unit(pixels).repeat(views, 1, 1, 1)  # (V·b, C, H, W)
    tokens = model.tokenizer(apply(images, drawn, augmentation.padding))
    scored = None
    if scored_share < 1:  # drawn last: a share of 1 leaves all other draws as they are
        order = torch.rand(
            scored_views, ranks.size, b, model.patches, generator=generator, device=pixels.device
        ).argsort(-1)
        scored = order[:, ranks.rank, :, : scored_patches(scored_share, model.patches)]
    return Views(tokens.unflatten(0, (views, b)), drawn.condition.unflatten(0, (views, b))[:scored_views], scored)
