"""adversarial autoencoder, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import GenerativeSettings, Words, positive


@dataclass(frozen=True)
class AAEConfig(GenerativeSettings):
    """An adversarial autoencoder: a code explains the view, and a discriminator cannot tell codes from normal noise."""

    kind = "adversarial"
    words = Words(
        label="adversarial autoencoder",
        learns="explaining images by a code that a discriminator takes for noise",
        what="a code without noise explains the view; a discriminator that tells codes from draws of a normal "
        "distribution is to be fooled by them, at weight `adversarial_weight`",
        when="as `vae`, for sharper codes, without a bound. `discriminator_loss` near 2 ln 2 = 1.39: codes look like "
        "the prior",
        cost="none to speak of",
        papers={"Makhzani et al. 2016": "https://arxiv.org/abs/1511.05644"},
    )

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

    @staticmethod
    def term() -> type:
        from components.objectives.adversarial.aae.term import AAE

        return AAE
