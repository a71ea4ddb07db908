"""The discretised logistic mixture of PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517), within a patch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.local_head import LocalHead, MaskedNetwork, below
from components.model.tokens import LEVELS, scaled

HALF_BIN = 1 / (LEVELS - 1)  # half the distance of neighbouring values on the scale from −1 to 1
LOG_SCALES = (-7.0, 7.0)  # from a hundredth of a bin (PixelCNN++'s floor) to flat; float32 is exact in between


class LogisticMixtureHead(LocalHead):
    """8-bit pixels in the patch's order, each a mixture whose components factorise over its channels.

    In a component the mean of G is linear in R, that of B in R and G (section 2.2 of the paper). The mixture is over
    whole pixels, so that channels stay dependent beyond that. All means of a pixel are shifted by a linear function of
    the patch's earlier pixels: their values as such, which norm and activation of the hidden layer blur.

    A pixel's C·M means and scales are one flat row, and what belongs to a channel is repeated for its M components by a
    product with zeros and ones: ONNX Runtime broadcasts over a short last axis thirty times slower.
    """

    below: Tensor
    repeat: Tensor

    def __init__(self, context_width: int, shape: tuple[int, int], width: int, mixture_components: int) -> None:
        super().__init__()
        self.shape = shape
        pixels, channels = shape
        self.mixture_components = M = mixture_components
        # a pixel's numbers: logits, means, log-scales, and for each channel but the last slopes of the means after it
        self.sizes = [M, channels * M, channels * M, *(later * M for later in range(channels - 1, 0, -1))]
        self.network = MaskedNetwork(context_width, pixels, channels, width)
        self.numbers = nn.Linear(width, sum(self.sizes))
        self.linear = nn.Linear(pixels * channels, pixels * channels, bias=False)
        self.register_buffer("below", below(pixels, channels, channels), persistent=False)
        self.register_buffer("repeat", torch.eye(channels).repeat_interleave(M, 1), persistent=False)  # (C, C·M)
        self._spread()

    @torch.no_grad()
    def _spread(self) -> None:
        """Start nearly uniform: components side by side on the grey axis, each as wide as the distance to the next."""
        nn.init.zeros_(self.numbers.weight)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.numbers.bias)
        _, means, log_scales, *_ = self.numbers.bias.split(self.sizes)
        distance = 2 / self.mixture_components
        means += torch.linspace(distance / 2 - 1, 1 - distance / 2, self.mixture_components).repeat(self.shape[1])
        log_scales += torch.tensor(distance / 2).log()

    def components(self, context: Tensor, tokens: Tensor, pixel: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (..., S, M), means and log-scales (..., S, C·M), float32; tokens (..., S, C) enter each mean as
        the pixel's earlier channels. Of one pixel alone: S is 1."""
        values, C = scaled(tokens), self.shape[1]
        hidden = self.network(context, values, pixel)
        rows = slice(None) if pixel is None else slice(pixel * C, (pixel + 1) * C)
        with torch.autocast(hidden.device.type, enabled=False):  # a mean in bfloat16 would be two levels wide
            logits, means, log_scales, *slopes = self._parts(hidden.float())
            shift = F.linear(values.flatten(-2), self.linear.weight[rows] * self.below[rows])
            means = means + shift.unflatten(-1, (-1, C)) @ self.repeat
            for c, slope in enumerate(slopes):
                known = tokens[..., c : c + 1] if pixel is None else tokens[..., [pixel], c : c + 1]
                means = means + slope.tanh() * scaled(known.float() @ torch.ones_like(self.repeat[:1]))
        return logits.log_softmax(-1), means, log_scales.clamp(*LOG_SCALES)

    def _parts(self, hidden: Tensor) -> list[Tensor]:
        """Logits (..., M), means and log-scales (..., C·M), and for each channel but the last the slopes (..., C·M) of
        the means in it, 0 for the channels up to it."""
        flat, first = hidden.flatten(0, -2), 0
        found: list[Tensor] = []
        for size in self.sizes:
            # a product of matrices with its bias for each part: ONNX Runtime computes it at once, and has none to split
            part = slice(first, first + size)
            missing = -size % self.repeat.shape[1] if found else 0
            weight = F.pad(self.numbers.weight[part], (0, 0, missing, 0))
            bias = F.pad(self.numbers.bias[part], (missing, 0))
            found.append(F.linear(flat, weight, bias).unflatten(0, hidden.shape[:-1]))
            first += size
        return found

    def read(self, tokens: Tensor) -> Tensor:
        return scaled(tokens)

    def nll(self, context: Tensor, tokens: Tensor) -> Tensor:
        weights, means, log_scales = self.components(context, tokens)
        exponents, factors = _mass(tokens.float() @ self.repeat, means, log_scales)  # (..., S, C·M)
        exponent, factor = exponents[..., : self.mixture_components], factors[..., : self.mixture_components]
        for c in range(1, self.shape[1]):
            channel = slice(c * self.mixture_components, (c + 1) * self.mixture_components)
            exponent, factor = exponent + exponents[..., channel], factor * factors[..., channel]
        return -(weights + exponent + factor.log()).logsumexp(-1)

    def log_probabilities(self, context: Tensor, tokens: Tensor, index: tuple[int, ...]) -> Tensor:
        s, c = index
        weights, *rows = (n.squeeze(context.ndim - 1) for n in self.components(context, tokens, s))
        means, log_scales = (row.unflatten(-1, (self.shape[1], -1)) for row in rows)  # (..., C, M)
        before = discretised_logistic(
            tokens[..., s, :c, None], means[..., :c, :], log_scales[..., :c, :]
        )  # (..., c, M)
        weights = (weights + before.sum(-2)).log_softmax(-1)  # which component, after the channels seen
        every = torch.arange(LEVELS, device=tokens.device)[:, None]
        likelihoods = discretised_logistic(every, means[..., [c], :], log_scales[..., [c], :])  # (..., 256, M)
        return (weights[..., None, :] + likelihoods).logsumexp(-1)


def discretised_logistic(values: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Logarithm of the mass that a logistic distribution on the scale from −1 to 1 puts on 8-bit values."""
    exponent, factor = _mass(values, means, log_scales)
    return exponent + factor.log()


def _mass(values: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """x and f such that a value's mass is e^x · f, where f lies between 10⁻⁶ and 1.

    The mass of a bin between two edges is σ(a) − σ(b) = σ(a) · σ(−b) · (1 − e^(b−a)); all beyond the outermost edges
    belongs to 0 and 255. Nothing is subtracted that could cancel: far from the mean the logarithm falls linearly, and
    its gradient stays, where PixelCNN++ takes an approximation. Products of several f need one logarithm.
    """
    precision = torch.exp(-log_scales)
    centred, half = (scaled(values) - means) * precision, HALF_BIN * precision
    lowest, highest = values == 0, values == LEVELS - 1
    upper = (centred + half).masked_fill(highest, torch.inf)  # a
    lower = (centred - half).masked_fill(lowest, -torch.inf)  # b
    half = half.masked_fill(lowest | highest, torch.inf)
    # σ(a) = e^min(a, 0) / (1 + e^−|a|), and 1 − e^(−2h) = tanh(h) · (1 + e^(−2h)), which stays exact for small h
    exponent = upper.clamp(max=0) - lower.clamp(min=0)
    width = half.tanh() * (1 + torch.exp(-2 * half))
    return exponent, width / ((1 + torch.exp(-upper.abs())) * (1 + torch.exp(-lower.abs())))
