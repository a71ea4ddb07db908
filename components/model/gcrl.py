"""The GCRL model: one causal stack, a transformer or PixelCNN++'s, its lower part an encoder, its upper part a decoder.

Kim, Kim and Lee, "Hybrid generative-contrastive representation learning", arXiv 2106.06162. The contrastive loss reads
the pooled output of the encoder, the likelihood reads the decoder above it. We work on patches instead of pixels (a
local head keeps the likelihood exact) and tell the decoder, never the encoder, how a view was augmented.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.config import ModelConfig
from components.model.local_head import CategoricalHead, LocalHead
from components.model.logistic_mixture import LogisticMixtureHead
from components.model.nested_head import NestedHead
from components.model.patch_sequence import PatchSequence
from components.model.pixelcnn import PixelCNN
from components.model.pretrained import PretrainedEncoder
from components.model.tokens import LEVELS, nested_sides, reduced
from components.model.transformer import Cache, Stack


@dataclass(frozen=True)
class Outputs:
    """What one pass gives for n views."""

    features: Tensor  # (n, D)
    projections: Tensor | None  # (n, P), L2-normalised
    # (n, T, S), nats a pixel; (n, m, S) where m patches of each view were scored; (n, 1, 1), the mean over an image, of
    # an ensemble of orders
    nll: Tensor | None


class GCRL(PatchSequence):
    """Encoder, and where the variant wants them a projection head (contrastive) and a decoder with its local head.

    Args:
        palette: uint8 colours (K, C); a likelihood of 8-bit pixels takes no more of it than C.
        condition_size: length of the augmentation parameters that the decoder is told; 0 tells it nothing.
        bidirectional: every position of the encoder sees all patches; such a model has no decoder.
        orders: 0 for a decoder that predicts the patches in raster order alone. Otherwise it is told which patch comes
            next, and may take them in any order; an image's likelihood is the mean over so many fixed ones, of which
            the raster is the first.
        filters: 0 for a transformer. Otherwise PixelCNN++'s convolutions with so many channels take its place.
        scored_size, scored_patch: 0 for the likelihood of the image itself. Otherwise it is that of the image reduced
            to this size, in patches of this side, which pass through the same stack (iGPT, Chen et al. 2020, section
            3.2, reduces all images so); features and projections see the whole image.
        pretrained: the encoder whose features are taken; then the stack serves the likelihood alone, if there is one.
    """

    other_orders: Tensor | None

    def __init__(
        self,
        config: ModelConfig,
        image_size: int,
        palette: Tensor,
        *,
        generative: bool,
        contrastive: bool,
        condition_size: int = 0,
        bidirectional: bool = False,
        orders: int = 0,
        filters: int = 0,
        scored_size: int = 0,
        scored_patch: int = 0,
        pretrained: PretrainedEncoder | None = None,
    ) -> None:
        super().__init__(config, image_size, config.patch_size, palette)
        D, side = config.width, image_size // config.patch_size

        def stack(layers: int, causal: bool = True) -> Stack | PixelCNN:
            if filters:
                return PixelCNN(D, filters, layers, side)
            return Stack(D, config.heads, layers, causal=causal)

        self.config, (self.colours, self.channels) = config, palette.shape
        self.pretrained = pretrained
        layers = config.encoder_layers if generative or pretrained is None else 0
        self.encoder = stack(layers, causal=not bidirectional)
        self.norm = nn.LayerNorm(D)
        self.projection = _projection(config) if contrastive else None
        self.condition: nn.Linear | None = None
        self.next_position: nn.Parameter | None = None
        self.decoder: Stack | PixelCNN | None = None
        self.decoder_norm: nn.LayerNorm | None = None
        self.head: LocalHead | None = None
        self.reduced: PatchSequence | None = None
        if generative:
            if condition_size:
                self.condition = nn.Linear(condition_size, D, bias=False)  # zero parameters: nothing is added
            self.decoder = stack(config.decoder_layers)
            self.decoder_norm = nn.LayerNorm(D)
            self.head = self.new_head(scored_patch or None)
            if scored_size:
                self.reduced = PatchSequence(config, scored_size, scored_patch, palette)
            if orders:
                self.next_position = nn.Parameter(torch.randn(self.patches, D) * 0.02)
        others = [torch.randperm(self.patches) for _ in range(orders - 1)]
        self.register_buffer("other_orders", torch.stack(others) if others else None)  # (orders − 1, T)

    def new_head(self, patch_size: int | None = None) -> LocalHead:
        """A local head for this model's tokens, in patches of `patch_size` (default: the model's own), and contexts as
        wide as it, with first weights of its own."""
        config, C = self.config, self.channels
        width, sides = config.local_width, nested_sides(patch_size or config.patch_size)

        def pixel_head(context_width: int, pixels: int) -> LocalHead:
            if config.likelihood == "palette":
                return CategoricalHead(context_width, (pixels,), self.colours, width)
            if config.likelihood == "categorical":
                return CategoricalHead(context_width, (pixels, C), LEVELS, width)
            return LogisticMixtureHead(context_width, (pixels, C), width, config.mixture_components)

        if len(sides) == 1:
            return pixel_head(config.width, sides[0] ** 2)
        reads = {"palette": width, "categorical": C * width, "logistic_mixture": C}[config.likelihood]
        return NestedHead(config.width, sides, 2 * width, reads, pixel_head)

    @property
    def scored(self) -> PatchSequence:
        """The sequence that the likelihood is of."""
        return self.reduced or self

    def scored_tokens(self, tokens: Tensor) -> Tensor:
        """The tokens (n, t, s, ...) that the likelihood is of, of an image's tokens (n, T, S, ...)."""
        if self.reduced is None:
            return tokens
        images = reduced(self.tokenizer.colours(tokens), self.image_size // self.reduced.image_size)
        return self.reduced.tokenizer(images)

    def encode(self, tokens: Tensor) -> Tensor:
        """The encoder's output (B, T + 1, D); position t has seen the patches < t, or all if it is bidirectional."""
        return self.encoder(self.embed(tokens))

    def pool(self, encoded: Tensor) -> Tensor:
        """Features (B, D): the mean over the normalised positions at the encoder's exit."""
        return self.norm(encoded).float().mean(1)

    def features(self, tokens: Tensor) -> Tensor:
        """Features (n, D) of tokens (n, T, S, ...)."""
        if self.pretrained is not None:
            return self.pretrained(self.tokenizer.colours(tokens))
        return self.pool(self.encode(tokens))

    @property
    def feature_size(self) -> int:
        """D, the length of the features."""
        return self.config.width if self.pretrained is None else self.pretrained.feature_size

    def contexts(
        self,
        encoded: Tensor,
        condition: Tensor | None = None,
        cache: Cache | None = None,
        following: Tensor | None = None,
    ) -> Tensor:
        """The decoder's output (B, t, D) for encoder outputs (B, t, D) and augmentation parameters (B, A).

        `following` (t,) or (B, t): the patch that each position is to predict; by default the first t in raster order.
        """
        assert self.decoder is not None
        assert self.decoder_norm is not None
        encoded = self.decoder_input(encoded, following)
        if self.condition is not None and condition is not None:
            encoded = encoded + self.condition(condition)[:, None]
        return self.decoder_norm(self.decoder(encoded, cache))

    def decoder_input(self, encoded: Tensor, following: Tensor | None = None) -> Tensor:
        """Encoder outputs (B, t, D) and, where the model takes patches in any order, which patch follows each."""
        if self.next_position is None:
            return encoded
        if following is None:
            following = torch.arange(encoded.shape[1], device=encoded.device)
        return encoded + F.embedding(following, self.next_position).to(encoded.dtype)

    def represent(
        self,
        tokens: Tensor,
        condition: Tensor | None = None,
        scored: Tensor | None = None,
        likelihoods: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One causal pass over tokens (n, T, S, ...) that serves both losses: features (n, D) and, where there is a
        decoder, the NLL (likelihoods, T, S) of the first `likelihoods` views (default: of all).

        No condition: the image was not augmented. `scored`: indices (likelihoods, m) of the patches that the local head
        scores, by default all; whatever is scored, its likelihood is the same. The likelihood of a reduced image takes
        a pass of its own.
        """
        if self.head is None:
            return self.features(tokens), None
        if self.reduced is None and self.pretrained is None:
            encoded = self.encode(tokens)
            return self.pool(encoded), self._nll(encoded[:likelihoods], tokens[:likelihoods], condition, scored)
        return self.features(tokens), self.nll(tokens[:likelihoods], condition, scored)

    def nll(self, tokens: Tensor, condition: Tensor | None = None, scored: Tensor | None = None) -> Tensor:
        """The NLL of `represent` alone."""
        tokens = self.scored_tokens(tokens)
        return self._nll(self.encoder(self.scored.embed(tokens)), tokens, condition, scored)

    def _nll(self, encoded: Tensor, tokens: Tensor, condition: Tensor | None, scored: Tensor | None) -> Tensor:
        assert self.head is not None
        # the last position has seen every patch: nothing is left for it to predict
        contexts = self.contexts(encoded[:, :-1], condition)
        if scored is not None:
            contexts, tokens = _rows(contexts, scored), _rows(tokens, scored)
        return self.head.nll(contexts, tokens)

    def nll_in_order(self, tokens: Tensor, order: Tensor, condition: Tensor | None = None) -> Tensor:
        """The NLL (n, T, S) of tokens (n, T, S, ...) whose patches come one after the other as `order` says, (T,) for
        all or (n, T); that of patch t is at t. The encoder is not told which patch follows, the decoder is."""
        assert self.head is not None
        sequence = torch.cat([torch.zeros_like(order[..., :1]), order[..., :-1] + 1], -1)  # nothing follows the last
        encoded = self.encoder(_rows(self.embed(tokens), sequence))
        contexts = self.contexts(encoded, condition, following=order)
        return self.head.nll(_rows(contexts, order.argsort(-1)), tokens)

    def project(self, features: Tensor) -> Tensor:
        """L2-normalised projections (n, P) of features (n, D). In training mode the batch statistics are theirs: all
        views of a step go in together."""
        assert self.projection is not None
        return F.normalize(self.projection(features).float(), dim=-1)

    def forward(self, tokens: Tensor, condition: Tensor | None = None, scored: Tensor | None = None) -> Outputs:
        """Features, projections and NLL of tokens (n, T, S, ...), as far as the variant has them; see `represent`."""
        features, nll = self.represent(tokens, condition, scored)
        if nll is not None and scored is None and self.other_orders is not None:
            nll = self._mean_over_orders(nll, tokens, condition)
        return Outputs(features, self.project(features) if self.projection else None, nll)

    def _mean_over_orders(self, raster: Tensor, tokens: Tensor, condition: Tensor | None) -> Tensor:
        """The NLL (n, 1, 1), nats a pixel, of the mean over all orders of an image's likelihood, itself a likelihood
        (Germain et al. 2015, section 4.2); `raster` (n, T, S) is the NLL in the first of them."""
        assert self.other_orders is not None
        others = [self.nll_in_order(tokens, order, condition) for order in self.other_orders]
        nll = torch.stack([x.mean((1, 2)) for x in (raster, *others)])  # (orders, n)
        pixels = raster.shape[1] * raster.shape[2]
        return (math.log(len(nll)) - (-nll * pixels).logsumexp(0))[:, None, None] / pixels


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """Rows of x (n, t, ...): the same ones (k,) for all, or others (n, k) for each."""
    if places.ndim == 1:
        return x[:, places]
    return x[torch.arange(len(x), device=x.device)[:, None], places]


def _projection(config: ModelConfig) -> nn.Sequential:
    """SimCLR's head; batch statistics keep the projections from collapsing early."""
    return nn.Sequential(
        nn.Linear(config.width, config.projection_width),
        nn.BatchNorm1d(config.projection_width),
        nn.GELU(),
        nn.Linear(config.projection_width, config.projection_size, bias=False),
    )
