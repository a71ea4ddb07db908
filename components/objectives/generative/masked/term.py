"""Masked patches predicted from all others (BERT: Devlin et al. 2019, arXiv 1810.04805, section 3.1; for images He et
al. 2022, arXiv 2111.06377, and Xie et al. 2022, arXiv 2111.09886).

The loss is the negative log-likelihood of the masked patches given the visible ones, each patch on its own. It is no
likelihood of images, nor a bound on one: a denoising autoencoder (Vincent et al. 2008) whose noise is the mask.

As in SimMIM, a learned embedding stands in the place of a masked patch at the encoder's entry, so that shapes do not
depend on the ratio. As in MAE, a decoder of its own reads the encoder's normalised output, which need not be pixels.
What we changed: in place of a regression, the model's own kind of local head gives the patch a distribution, so that
the loss is the same for palette indices and 8-bit pixels, and in nats.
"""

import torch
from torch import Tensor, nn

from components.model.gcrl import GCRL
from components.model.transformer import Stack
from components.objectives.base import GenerativeTerm, Loss, TrainingSet
from components.objectives.generative.masked import MaskedConfig


class Masked(GenerativeTerm[MaskedConfig]):
    """Mean negative log-likelihood of masked patches in nats a token. Owns the mask's embedding, a decoder of as many
    layers as the model's would have, and the local head.

    The features are those of the view as it is, as they are of the trained encoder: beside a contrastive term the views
    pass the encoder twice.
    """

    def __init__(self, config: MaskedConfig, model: GCRL, data: TrainingSet) -> None:
        super().__init__(config, model, data)
        self.patches, shape = model.patches, model.config
        self.count = config.masked(self.patches)
        self.embedding = nn.Parameter(torch.randn(shape.width) * 0.02)
        self.decoder = Stack(shape.width, shape.heads, shape.decoder_layers, causal=False)
        self.decoder_norm = nn.LayerNorm(shape.width)
        self.head = model.new_head()

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor:
        """The patches (views, images, m) that are masked, other ones for each view."""
        order = torch.rand(views, images, self.patches, generator=generator, device=generator.device).argsort(-1)
        return order[:, :, : self.count]

    def values(self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None) -> Tensor:
        """The NLL (n, m, S) of the masked patches."""
        assert drawn is not None
        image = torch.arange(len(tokens), device=tokens.device)[:, None]
        contexts = self.contexts(model, tokens, drawn)
        return self.head.nll(contexts[image, drawn], tokens[image, drawn])

    def contexts(self, model: GCRL, tokens: Tensor, masked: Tensor) -> Tensor:
        """What is known of every patch (n, T, D) of tokens (n, T, S, ...) without those `masked` (n, m)."""
        x = model.embed(tokens)  # (n, T + 1, D), the start first
        hidden = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device).scatter(1, masked + 1, value=True)
        x = torch.where(hidden[..., None], (self.embedding + model.position).to(x.dtype), x)
        return self.decoder_norm(self.decoder(model.norm(model.encoder(x))))[:, 1:]

    def forward(self, values: Tensor) -> Loss:
        return values.mean(), {}
