"""A variant: which objective terms, at which weights, and each term's own keys. No tensor library is imported here.

A term's settings are a frozen dataclass whose `name` has one value; it is listed in the union of its kind, at the end.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass(frozen=True)
class NTXentConfig:
    """SimCLR: every other view of the batch is a negative."""

    name: Literal["nt_xent"] = "nt_xent"
    temperature: float = 0.2

    def __post_init__(self) -> None:
        _positive(self, "temperature")


@dataclass(frozen=True)
class MoCoConfig:
    """MoCo v2: negatives are the keys of earlier batches."""

    name: Literal["moco"] = "moco"
    queue: int = 4096  # keys; a few batches' views, but no more than there are images
    momentum: float = 0.99  # of the encoder that computes the keys
    temperature: float = 0.2

    def __post_init__(self) -> None:
        _positive(self, "queue", "temperature")
        _share(self, "momentum")


@dataclass(frozen=True)
class MoCoV3Config:
    """MoCo v3: no queue, but a predictor."""

    name: Literal["moco_v3"] = "moco_v3"
    momentum: float = 0.99  # at first; it grows along a cosine to 1
    temperature: float = 0.2

    def __post_init__(self) -> None:
        _positive(self, "temperature")
        _share(self, "momentum")


@dataclass(frozen=True)
class SupConConfig:
    """SupCon: images of a class are positives; needs labels."""

    name: Literal["supcon"] = "supcon"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "temperature")


@dataclass(frozen=True)
class CACRConfig:
    """CACR: farther positives and nearer negatives weigh more."""

    name: Literal["cacr"] = "cacr"
    views: int = 4  # of an image, in place of training.views
    alpha: float = 1.0  # weight of the attraction
    beta: float = 1.0  # weight of the repulsion
    tau_positive: float = 1.0  # how much more a positive weighs the farther it is
    tau_negative: float = 0.9  # how much more a negative weighs the nearer it is

    def __post_init__(self) -> None:
        if self.views < 2:
            raise ValueError("views must be at least 2: a view needs another of its image to agree with")
        _positive(self, "alpha", "beta")
        if self.tau_positive < 0 or self.tau_negative < 0:
            raise ValueError("tau_positive and tau_negative must not be negative")


@dataclass(frozen=True)
class InstDiscConfig:
    """InstDisc: every image is a class of its own, remembered in a bank."""

    name: Literal["instdisc"] = "instdisc"
    negatives: int | None = None  # noise images a step; null: all images, exactly
    momentum: float = 0.5  # of an image's vector in the bank
    temperature: float = 0.07

    def __post_init__(self) -> None:
        _positive(self, "temperature")
        if self.negatives is not None:
            _positive(self, "negatives")
        _share(self, "momentum")


@dataclass(frozen=True)
class LoCoConfig:
    """LoCo: a loss of its own for every few blocks of the encoder, and no gradient between them."""

    name: Literal["loco"] = "loco"
    overlap: int = 1  # blocks that neighbouring units share
    temperature: float = 0.2

    def __post_init__(self) -> None:
        _positive(self, "temperature")
        if self.overlap < 0:
            raise ValueError("overlap must not be negative")


@dataclass(frozen=True)
class AutoregressiveConfig:
    """The exact likelihood in raster order, at the decoder's exit."""

    exact: ClassVar[bool] = True  # whether it trains the model's own decoder, which gives an exact likelihood
    bidirectional: ClassVar[bool] = False  # whether it trains an encoder that sees all patches from everywhere

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
ContrastiveConfig = NTXentConfig | MoCoConfig | MoCoV3Config | SupConConfig | CACRConfig | InstDiscConfig | LoCoConfig
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
        if self.w_gen and self.w_con and isinstance(self.contrastive, LoCoConfig):
            raise ValueError("loco lets no gradient through the encoder that a likelihood needs: set w_gen to 0")

    @property
    def likelihood(self) -> bool:
        """Whether the trained model gives an exact likelihood; otherwise it has no decoder."""
        return self.w_gen > 0 and self.generative.exact

    def views(self, contrasted: int) -> int:
        """How many views of an image a step draws, where `contrasted` are to be contrasted."""
        return contrasted if self.w_con else self.generative.scored_views


def _positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be positive")


def _share(config: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must lie in [0, 1)")
