"""VQ-VAE, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.settings import GenerativeSettings, Words, positive


@dataclass(frozen=True)
class VQVAEConfig(GenerativeSettings):
    """A vector-quantised autoencoder: a code of a codebook for each patch must explain the view."""

    words = Words(
        label="VQ-VAE",
        learns="explaining images by a code of a codebook for each patch",
        what="each patch's output of the encoder is replaced by the nearest of `codebook_size` vectors, by which the "
        "decoder explains the view",
        when="images are to become short sequences of whole numbers. `val/codebook_perplexity` says how many codes are "
        "in use. Not for its features: a patch's output need only say what that patch is, and their mean forgets "
        "where each lay",
        cost="none",
        papers={"van den Oord et al. 2017": "https://arxiv.org/abs/1711.00937"},
    )
    zoo: ClassVar = {"vqvae": {"codebook_size": 128}}

    name: Literal["vqvae"] = "vqvae"
    codebook_size: int = 512  # codes
    code_size: int = 32  # their dimensions
    commitment_weight: float = 0.25  # of the pull on the encoder towards the codes it chose
    decoder_layers: int = 2
    scored_views: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        positive(self, "codebook_size", "code_size", "commitment_weight", "decoder_layers")

    @staticmethod
    def term() -> type:
        from components.objectives.generative.vqvae.term import VQVAE

        return VQVAE
