"""The generative terms' settings. No tensor library is imported here.

Each is a frozen dataclass whose `name` has one value; it is listed in the union at the end. All have `scored_views`:
how many views of each image a training step scores. All views are contrasted.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.config_checks import between_0_and_1, positive


class GenerativeSettings:
    """What a term says of itself besides its keys."""

    kind: ClassVar[str] = "generative"  # what a variant of this term alone learns by
    exact: ClassVar[bool] = False  # whether it trains the model's own decoder; otherwise it owns its decoder
    bidirectional: ClassVar[bool] = True  # whether the encoder that it trains sees all patches from everywhere


@dataclass(frozen=True)
class RasterSettings(GenerativeSettings):
    """An exact likelihood in raster order, at the decoder's exit."""

    exact = True
    bidirectional = False
    orders: ClassVar[int] = 0  # the raster's alone

    condition_on_augmentation: bool = True  # the decoder, never the encoder, is told a view's parameters
    scored_views: Literal[1, 2] = 2
    scored_ratio: float = 1.0  # a training step scores this share of each view's patches, drawn at random: unbiased

    def __post_init__(self) -> None:
        if not 0 < self.scored_ratio <= 1:
            raise ValueError("scored_ratio must lie in (0, 1]")

    def scored(self, patches: int) -> int:
        """How many of a view's patches a step scores: the nearest number to the ratio, at least one."""
        return max(1, round(self.scored_ratio * patches))


@dataclass(frozen=True)
class AutoregressiveConfig(RasterSettings):
    """The likelihood of a transformer."""

    name: Literal["autoregressive"] = "autoregressive"


@dataclass(frozen=True)
class PixelCNNConfig(RasterSettings):
    """The same, of PixelCNN++'s convolutions in the place of the transformer's blocks, one for one."""

    name: Literal["pixelcnn"] = "pixelcnn"
    filters: int | None = None  # of each stream; null: half of model.width, which costs about what its blocks cost

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filters is not None:
            positive(self, "filters")

    def filters_beside(self, width: int) -> int:
        """The filters of a model of this width."""
        return self.filters or (width + 1) // 2


@dataclass(frozen=True)
class PermutedConfig(GenerativeSettings):
    """The exact likelihood in any order: training draws one for each view."""

    exact = True
    bidirectional = False

    name: Literal["permuted"] = "permuted"
    condition_on_augmentation: bool = True  # as above
    scored_views: Literal[1, 2] = 2
    orders: int = 1  # the likelihood of the trained model is the mean over so many, the raster order first

    def __post_init__(self) -> None:
        positive(self, "orders")


@dataclass(frozen=True)
class MaskedConfig(GenerativeSettings):
    """Masked patches, from all that is not masked."""

    name: Literal["masked"] = "masked"
    scored_views: Literal[1, 2] = 2
    mask_ratio: float = 0.5  # of a view's patches that are masked

    def __post_init__(self) -> None:
        between_0_and_1(self, "mask_ratio")

    def masked(self, patches: int) -> int:
        """How many of a view's patches are masked: the nearest number to the ratio, at least one."""
        return max(1, round(self.mask_ratio * patches))


@dataclass(frozen=True)
class ReplacedConfig(GenerativeSettings):
    """ELECTRA: which patches has a small masked model replaced?"""

    name: Literal["replaced"] = "replaced"
    scored_views: Literal[1, 2] = 2
    mask_ratio: float = 0.5  # of a view's patches that are masked, then drawn anew
    discriminator_weight: float = 50.0  # of telling which they are, beside the small model's own loss: λ

    def __post_init__(self) -> None:
        between_0_and_1(self, "mask_ratio")
        positive(self, "discriminator_weight")


@dataclass(frozen=True)
class VAEConfig(GenerativeSettings):
    """A variational autoencoder: a Gaussian code of the features must explain the view."""

    name: Literal["vae"] = "vae"
    latent_size: int = 32  # dimensions of the code
    beta: float = 1.0  # weight of the KL; 1: the bound on the likelihood itself
    importance_samples: int = 8  # codes that the tighter bound of a validation image is computed from
    decoder_layers: int = 2
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "latent_size", "beta", "importance_samples", "decoder_layers")


@dataclass(frozen=True)
class VQVAEConfig(GenerativeSettings):
    """A vector-quantised autoencoder: a code of a codebook for each patch must explain the view."""

    name: Literal["vqvae"] = "vqvae"
    codebook_size: int = 512  # codes
    code_size: int = 32  # their dimensions
    commitment_weight: float = 0.25  # of the pull on the encoder towards the codes it chose
    decoder_layers: int = 2
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "codebook_size", "code_size", "commitment_weight", "decoder_layers")


@dataclass(frozen=True)
class AAEConfig(GenerativeSettings):
    """An adversarial autoencoder: a code explains the view, and a discriminator cannot tell codes from normal noise."""

    kind = "adversarial"

    name: Literal["aae"] = "aae"
    latent_size: int = 32  # dimensions of the code
    adversarial_weight: float = 0.1  # of the adversarial losses (nats a view) against the reconstruction (nats a token)
    gradient_penalty: float = 10.0  # weight, among these, of the discriminator's squared slope between codes and prior
    decoder_layers: int = 2
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "latent_size", "adversarial_weight", "decoder_layers")
        if self.gradient_penalty < 0:
            raise ValueError("gradient_penalty must not be negative")


@dataclass(frozen=True)
class BiGANConfig(GenerativeSettings):
    """A bidirectional GAN: a discriminator cannot tell views and their codes from generated views and drawn codes."""

    kind = "adversarial"

    name: Literal["bigan"] = "bigan"
    latent_size: int = 32  # dimensions of the code
    generator_layers: int = 2
    discriminator_layers: int = 2
    gradient_penalty: float = 10.0  # weight of the discriminator's squared slope between real and generated pairs
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "latent_size", "generator_layers", "discriminator_layers")
        if self.gradient_penalty < 0:
            raise ValueError("gradient_penalty must not be negative")


ExactConfig = AutoregressiveConfig | PixelCNNConfig | PermutedConfig  # those of which `exact` is true
# the first is what a section without a name means
GenerativeConfig = (
    AutoregressiveConfig
    | PixelCNNConfig
    | PermutedConfig
    | MaskedConfig
    | ReplacedConfig
    | VAEConfig
    | VQVAEConfig
    | AAEConfig
    | BiGANConfig
)
