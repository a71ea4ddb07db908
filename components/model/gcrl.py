"""The GCRL model: one causal transformer, its lower part an encoder, its upper part a decoder.

Kim, Kim and Lee, "Hybrid generative-contrastive representation learning", arXiv 2106.06162. The contrastive loss reads
the pooled output of the encoder, the likelihood reads the decoder above it. We work on patches instead of pixels (a
local head keeps the likelihood exact) and tell the decoder, never the encoder, how a view was augmented.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.config import ModelConfig
from components.model.local_head import LocalHead
from components.model.tokens import Tokenizer
from components.model.transformer import Cache, Stack


@dataclass(frozen=True)
class Outputs:
    """What one pass gives for n views."""

    features: Tensor  # (n, D)
    projections: Tensor | None  # (n, P), L2-normalised
    nll: Tensor | None  # (n, T, S), nats a token


class GCRL(nn.Module):
    """Encoder, and where the variant wants them a projection head (contrastive) and a decoder with its local head.

    Args:
        palette: uint8 colours (K, C).
        condition_size: length of the augmentation parameters that the decoder is told; 0 tells it nothing.
    """

    def __init__(
        self,
        config: ModelConfig,
        image_size: int,
        palette: Tensor,
        *,
        generative: bool,
        contrastive: bool,
        condition_size: int = 0,
    ) -> None:
        super().__init__()
        D, S = config.width, config.patch_size**2
        self.image_size, self.patches = image_size, (image_size // config.patch_size) ** 2
        self.tokenizer = Tokenizer(palette, config.patch_size)
        self.embedding = nn.Embedding(len(palette), config.local_width)
        self.patch = nn.Linear(S * config.local_width, D)
        self.start = nn.Parameter(torch.randn(D) * 0.02)
        self.position = nn.Parameter(torch.randn(self.patches + 1, D) * 0.02)
        self.encoder = Stack(D, config.heads, config.encoder_layers)
        self.norm = nn.LayerNorm(D)
        self.projection = _projection(config) if contrastive else None
        self.condition: nn.Linear | None = None
        self.decoder: Stack | None = None
        self.decoder_norm: nn.LayerNorm | None = None
        self.head: LocalHead | None = None
        if generative:
            if condition_size:
                self.condition = nn.Linear(condition_size, D, bias=False)  # zero parameters: nothing is added
            self.decoder = Stack(D, config.heads, config.decoder_layers)
            self.decoder_norm = nn.LayerNorm(D)
            self.head = LocalHead(D, S, len(palette), config.local_width)

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """The input sequence (B, t + 1, D): a learned start, then each patch of tokens (B, t, S), whose positions are
        first … first + t − 1."""
        patches = self.patch(self.embedding(tokens).flatten(2))  # (B, t, D)
        start = self.start.to(patches.dtype).expand(tokens.shape[0], 1, -1)
        # under autocast the residual stream stays in bfloat16: casting back and forth costs a quarter of a step on CPU
        position = self.position[first : first + tokens.shape[1] + 1].to(patches.dtype)
        return torch.cat([start, patches], 1) + position

    def encode(self, tokens: Tensor) -> Tensor:
        """The encoder's output (B, T + 1, D); position t has seen the patches < t."""
        return self.encoder(self.embed(tokens))

    def pool(self, encoded: Tensor) -> Tensor:
        """Features (B, D): the mean over the normalised positions at the encoder's exit."""
        return self.norm(encoded).float().mean(1)

    def contexts(self, encoded: Tensor, condition: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """The decoder's output (B, T, D) for encoder outputs (B, T, D) and augmentation parameters (B, A)."""
        assert self.decoder is not None
        assert self.decoder_norm is not None
        if self.condition is not None and condition is not None:
            encoded = encoded + self.condition(condition)[:, None]
        return self.decoder_norm(self.decoder(encoded, cache))

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Outputs:
        """One causal pass over tokens (n, T, S) that serves both losses. No condition: the image was not augmented."""
        encoded = self.encode(tokens)
        features = self.pool(encoded)
        projections = F.normalize(self.projection(features).float(), dim=-1) if self.projection else None
        nll = None
        if self.head:  # the last position has seen every patch: nothing is left for it to predict
            nll = self.head.nll(self.contexts(encoded[:, :-1], condition), tokens)
        return Outputs(features, projections, nll)


def _projection(config: ModelConfig) -> nn.Sequential:
    """SimCLR's head; batch statistics keep the projections from collapsing early."""
    return nn.Sequential(
        nn.Linear(config.width, config.projection_width),
        nn.BatchNorm1d(config.projection_width),
        nn.GELU(),
        nn.Linear(config.projection_width, config.projection_size, bias=False),
    )
