"""The autoregressive likelihood of iGPT ("Generative pretraining from pixels", Chen et al. 2020, equation 2): one
causal pass over the patches.

What we changed: a position is a patch instead of a pixel (`patch_size: 1` is the paper's form), whose pixels a local
head factorises; the decoder is told how a view was augmented; a step may score a random share of the patches. Whether
the model is a transformer or PixelCNN++'s convolutions makes no difference here.
"""

import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.objectives.base import GenerativeTerm, Loss, TrainingSet
from components.objectives.generative.autoregressive import RasterSettings


class Autoregressive(GenerativeTerm[RasterSettings]):
    """Mean negative log-likelihood in nats a token, of all patches or of a random share of them.

    The pass that gives the likelihood gives the features, too.
    """

    def __init__(self, config: RasterSettings, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.patches = model.scored.patches

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor | None:
        """The patches (views, images, m) that are scored, other ones for each view; None: all."""
        if self.config.scored_ratio == 1:
            return None
        order = torch.rand(views, images, self.patches, generator=generator, device=generator.device).argsort(-1)
        return order[:, :, : self.config.scored(self.patches)]

    def represent(
        self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None, scored: int
    ) -> tuple[Tensor, Tensor]:
        """Features (n, D) and the NLL (scored, T or m, S)."""
        features, nll = model.represent(tokens, condition, drawn, scored)
        assert nll is not None
        return features, nll

    def values(self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None) -> Tensor:
        """The NLL (n, T or m, S)."""
        return model.nll(tokens, condition, drawn)

    def forward(self, values: Tensor) -> Loss:
        loss = values.mean()
        return loss, {"nll_nats_per_token": loss.detach()}
