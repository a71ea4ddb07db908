"""A variant: which objective terms, at which weights, and each term's own keys. No tensor library is imported here.

A term's settings are a frozen dataclass whose `name` has one value; it is listed in the union of its kind, at the end.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class NTXentConfig:
    """SimCLR: every other view of the batch is a negative."""

    name: Literal["nt_xent"] = "nt_xent"
    temperature: float = 0.2

    def __post_init__(self) -> None:
        _positive(self, "temperature")


@dataclass(frozen=True)
class AutoregressiveConfig:
    """The exact likelihood in raster order, at the decoder's exit."""

    name: Literal["autoregressive"] = "autoregressive"
    tell_decoder: bool = True  # give the decoder (never the encoder) the view's augmentation parameters
    scored_views: Literal[1, 2] = 2  # a training step scores so many views of each image; all views are contrasted
    scored_share: float = 1.0  # a training step scores this share of each view's patches, drawn at random: unbiased

    def __post_init__(self) -> None:
        if not 0 < self.scored_share <= 1:
            raise ValueError("scored_share must lie in (0, 1]")

    def scored(self, patches: int) -> int:
        """How many of a view's patches a step scores: the nearest number to the share, at least one."""
        return max(1, round(self.scored_share * patches))


# the first of each kind is what a section without a name means
ContrastiveConfig = NTXentConfig
GenerativeConfig = AutoregressiveConfig


@dataclass(frozen=True)
class VariantConfig:
    """`loss = w_gen · generative + w_con · contrastive`; a weight of 0 leaves a term and its part of the model out."""

    w_gen: float
    w_con: float
    contrastive: ContrastiveConfig = field(default_factory=NTXentConfig)
    generative: GenerativeConfig = field(default_factory=AutoregressiveConfig)

    def __post_init__(self) -> None:
        if self.w_gen < 0 or self.w_con < 0:
            raise ValueError("w_gen and w_con must not be negative")
        if self.w_gen == 0 and self.w_con == 0:
            raise ValueError("w_gen and w_con are both 0: the variant has nothing to learn from")

    def views(self, contrasted: int) -> int:
        """How many views of an image a step draws, where `contrasted` are to be contrasted."""
        return contrasted if self.w_con else self.generative.scored_views


def _positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be positive")
