"""A variant: which objective terms, at which weights. No tensor library is imported here."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ContrastiveConfig:
    """The contrastive term at the encoder's exit."""

    name: Literal["nt_xent"] = "nt_xent"
    temperature: float = 0.2

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError("temperature must be positive")


@dataclass(frozen=True)
class GenerativeConfig:
    """The likelihood term at the decoder's exit."""

    name: Literal["autoregressive"] = "autoregressive"
    tell_decoder: bool = True  # give the decoder (never the encoder) the view's augmentation parameters
    scored_views: Literal[1, 2] = 2  # a training step scores so many views of each image; all views are contrasted
    scored_share: float = 1.0  # a training step scores this share of each view's patches, drawn at random: unbiased

    def __post_init__(self) -> None:
        if not 0 < self.scored_share <= 1:
            raise ValueError("scored_share must lie in (0, 1]")


@dataclass(frozen=True)
class VariantConfig:
    """`loss = w_gen · NLL + w_con · contrastive`; a weight of 0 leaves that term and its part of the model out."""

    w_gen: float
    w_con: float
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    generative: GenerativeConfig = field(default_factory=GenerativeConfig)

    def __post_init__(self) -> None:
        if self.w_gen < 0 or self.w_con < 0:
            raise ValueError("w_gen and w_con must not be negative")
        if self.w_gen == 0 and self.w_con == 0:
            raise ValueError("w_gen and w_con are both 0: the variant has nothing to learn from")

    def views(self, contrasted: int) -> int:
        """How many views of an image a step draws, where `contrasted` are to be contrasted."""
        return contrasted if self.w_con else self.generative.scored_views
