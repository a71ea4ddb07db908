"""The generative terms' settings. No tensor library is imported here.

Each is a frozen dataclass whose `name` has one value; it is listed in the union at the end. It says of its term

- `exact`: whether it trains the model's own decoder, which gives an exact likelihood. A term that does not owns its
  decoder, and the model is an encoder alone;
- `bidirectional`: whether the encoder that it trains sees all patches from everywhere;
- `scored_views`, a setting: how many views of each image a training step scores. All views are contrasted.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.config_checks import between_0_and_1, positive


@dataclass(frozen=True)
class AutoregressiveConfig:
    """The exact likelihood in raster order, at the decoder's exit."""

    exact: ClassVar[bool] = True
    bidirectional: ClassVar[bool] = False
    orders: ClassVar[int] = 0  # the raster's alone

    name: Literal["autoregressive"] = "autoregressive"
    tell_decoder: bool = True  # give the decoder (never the encoder) the view's augmentation parameters
    scored_views: Literal[1, 2] = 2
    scored_share: float = 1.0  # a training step scores this share of each view's patches, drawn at random: unbiased

    def __post_init__(self) -> None:
        if not 0 < self.scored_share <= 1:
            raise ValueError("scored_share must lie in (0, 1]")

    def scored(self, patches: int) -> int:
        """How many of a view's patches a step scores: the nearest number to the share, at least one."""
        return max(1, round(self.scored_share * patches))


@dataclass(frozen=True)
class PermutedConfig:
    """The exact likelihood in any order: training draws one for each view."""

    exact: ClassVar[bool] = True
    bidirectional: ClassVar[bool] = False

    name: Literal["permuted"] = "permuted"
    tell_decoder: bool = True  # as above
    scored_views: Literal[1, 2] = 2
    orders: int = 1  # the likelihood of the trained model is the mean over so many, the raster order first

    def __post_init__(self) -> None:
        positive(self, "orders")


@dataclass(frozen=True)
class MaskedConfig:
    """Masked patches, from all that is not masked."""

    exact: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = True

    name: Literal["masked"] = "masked"
    scored_views: Literal[1, 2] = 2
    share: float = 0.5  # of a view's patches that are masked

    def __post_init__(self) -> None:
        between_0_and_1(self, "share")

    def masked(self, patches: int) -> int:
        """How many of a view's patches are masked: the nearest number to the share, at least one."""
        return max(1, round(self.share * patches))


@dataclass(frozen=True)
class ReplacedConfig:
    """ELECTRA: which patches has a small masked model replaced?"""

    exact: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = True

    name: Literal["replaced"] = "replaced"
    scored_views: Literal[1, 2] = 2
    share: float = 0.5  # of a view's patches that are masked, then drawn anew
    detection: float = 50.0  # weight of telling which they are, beside the small model's own loss

    def __post_init__(self) -> None:
        between_0_and_1(self, "share")
        positive(self, "detection")


@dataclass(frozen=True)
class VAEConfig:
    """A variational autoencoder: a Gaussian code of the features must explain the view."""

    exact: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = True

    name: Literal["vae"] = "vae"
    code: int = 32  # its dimensions
    beta: float = 1.0  # weight of the KL; 1: the bound on the likelihood itself
    samples: int = 8  # codes that the bound of a validation image is computed from
    decoder_layers: int = 2
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "code", "beta", "samples", "decoder_layers")


@dataclass(frozen=True)
class VQVAEConfig:
    """A vector-quantised autoencoder: a code of a codebook for each patch must explain the view."""

    exact: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = True

    name: Literal["vqvae"] = "vqvae"
    codes: int = 512  # of the codebook
    code: int = 32  # their dimensions
    commitment: float = 0.25  # weight of the pull on the encoder towards the codes it chose
    decoder_layers: int = 2
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "codes", "code", "commitment", "decoder_layers")


@dataclass(frozen=True)
class AAEConfig:
    """An adversarial autoencoder: a code explains the view, and a discriminator cannot tell codes from normal noise."""

    kind: ClassVar[str] = "adversarial"
    exact: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = True

    name: Literal["aae"] = "aae"
    code: int = 32  # its dimensions
    adversary: float = 0.1  # weight of the adversarial losses, in nats a view, beside the reconstruction's a token
    penalty: float = 10.0  # weight, among these, of the discriminator's squared slope between codes and the prior
    decoder_layers: int = 2
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "code", "adversary", "decoder_layers")
        if self.penalty < 0:
            raise ValueError("penalty must not be negative")


@dataclass(frozen=True)
class BiGANConfig:
    """A bidirectional GAN: a discriminator cannot tell views and their codes from generated views and drawn codes."""

    kind: ClassVar[str] = "adversarial"
    exact: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = True

    name: Literal["bigan"] = "bigan"
    code: int = 32  # its dimensions
    generator_layers: int = 2
    discriminator_layers: int = 2
    penalty: float = 10.0  # weight of the discriminator's squared slope between real and generated pairs
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "code", "generator_layers", "discriminator_layers")
        if self.penalty < 0:
            raise ValueError("penalty must not be negative")


ExactConfig = AutoregressiveConfig | PermutedConfig  # those of which `exact` is true
# the first is what a section without a name means
GenerativeConfig = (
    AutoregressiveConfig
    | PermutedConfig
    | MaskedConfig
    | ReplacedConfig
    | VAEConfig
    | VQVAEConfig
    | AAEConfig
    | BiGANConfig
)
