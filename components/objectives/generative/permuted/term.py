"""The likelihood in random orders of the patches (XLNet; Yang et al. 2019, arXiv 1906.08237, equation 3).

Every view is predicted in an order of its own, drawn anew in each step; all orders share the weights, so that the
trained model has an exact likelihood in any of them (Uria et al. 2014, arXiv 1310.1757), and the mean over some is one,
too (MADE; Germain et al. 2015, arXiv 1502.03509, section 4.2).

What we changed: instead of permuting the attention mask and running two streams through all layers, the patches
themselves go in in that order, each with the embedding of its own position, and the decoder's input is told the
position of the patch that follows (as in σ-GPT; Pannatier et al. 2024, arXiv 2404.09562, which tells all layers). So
the encoder is told of no target, and every patch is predicted, not only the last ones of each order.
"""

import torch
from torch import Tensor

from components.model.gcrl import GCRL
from components.objectives.base import GenerativeTerm, Loss, TrainingSet
from components.objectives.generative.permuted import PermutedConfig


class Permuted(GenerativeTerm[PermutedConfig]):
    """Mean negative log-likelihood in nats a token, in an order drawn for each scored view.

    The features are those of the raster order, which is also that of the trained encoder: beside a contrastive term
    the views pass the encoder twice.
    """

    def __init__(self, config: PermutedConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.patches = model.patches

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor:
        """Orders (views, images, T): the patches one after the other."""
        return torch.rand(views, images, self.patches, generator=generator, device=generator.device).argsort(-1)

    def values(self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None) -> Tensor:
        """The NLL (n, T, S)."""
        assert drawn is not None
        return model.nll_in_order(tokens, drawn, condition)

    def forward(self, values: Tensor) -> Loss:
        loss = values.mean()
        return loss, {"nll_nats_per_token": loss.detach()}
