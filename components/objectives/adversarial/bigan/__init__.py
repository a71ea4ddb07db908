"""BiGAN, ALI, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import GenerativeSettings, Words, positive


@dataclass(frozen=True)
class BiGANConfig(GenerativeSettings):
    """A bidirectional GAN: a discriminator cannot tell views and their codes from generated views and drawn codes."""

    kind = "adversarial"
    words = Words(
        label="BiGAN, ALI",
        learns="inverting a generator of images, to the satisfaction of a discriminator",
        what="a discriminator tells pairs (view, its code) from (generated view, the code it is made of); encoder and "
        "generator fool it, nothing is reconstructed",
        when="to study features without a reconstruction; with the run's optimizer far behind the others, see below",
        cost="3.3 times: the discriminator reads six pairs a view, two of them in float32",
        papers={
            "Donahue et al. 2017": "https://arxiv.org/abs/1605.09782",
            "Dumoulin et al. 2017": "https://arxiv.org/abs/1606.00704",
        },
    )

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

    @staticmethod
    def term() -> type:
        from components.objectives.adversarial.bigan.term import BiGAN

        return BiGAN
