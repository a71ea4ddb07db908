"""VAE, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import GenerativeSettings, Words, positive


@dataclass(frozen=True)
class VAEConfig(GenerativeSettings):
    """A variational autoencoder: a Gaussian code of the features must explain the view."""

    words = Words(
        label="VAE",
        learns="explaining images by a noisy code",
        what="the features give a Gaussian over codes of `latent_size` numbers, a decoder explains the view by a code "
        "drawn from it; reconstruction + `beta` · KL to a standard normal distribution",
        when="one vector is to hold what an image shows, or a *bound* on the likelihood will do: `bits_per_dim_bound` "
        "(ELBO) and, on validation, the tighter `bits_per_dim_bound_iwae` from `importance_samples` codes an image "
        "([Burda et al. 2016](https://arxiv.org/abs/1509.00519)) say how many bits/dim it is at most",
        cost="none",
        papers={"Kingma & Welling 2014": "https://arxiv.org/abs/1312.6114"},
    )

    name: Literal["vae"] = "vae"
    latent_size: int = 32  # dimensions of the code
    beta: float = 1.0  # weight of the KL; 1: the bound on the likelihood itself
    importance_samples: int = 8  # codes that the tighter bound of a validation image is computed from
    decoder_layers: int = 2
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "latent_size", "beta", "importance_samples", "decoder_layers")

    @staticmethod
    def term() -> type:
        from components.objectives.generative.vae.term import VAE

        return VAE
