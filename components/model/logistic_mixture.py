"""The discretised logistic mixture of PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517), within a patch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.local_head import LocalHead, MaskedNetwork, below
from components.model.tokens import LEVELS, scaled

HALF_BIN = 1 / (LEVELS - 1)  # half the distance of neighbouring values on the scale from −1 to 1
LOG_SCALES = (-7.0, 7.0)  # from a hundredth of a bin (PixelCNN++'s floor) to flat; float32 is exact in between


class LogisticMixtureHead(LocalHead):
    """8-bit pixels in raster order inside the patch, each a mixture whose components factorise over its channels.

    In a component the mean of G is linear in R, that of B in R and G (section 2.2 of the paper). The mixture is over
    whole pixels, so that channels stay dependent beyond that. All means of a pixel are shifted by a linear function of
    the patch's earlier pixels: their values as such, which norm and activation of the hidden layer blur.
    """

    below: Tensor

    def __init__(self, context_width: int, shape: tuple[int, int], width: int, mixture_components: int) -> None:
        super().__init__()
        self.shape = shape
        pixels, channels = shape
        self.mixture_components = mixture_components
        self.sizes = [1, channels, channels, channels * (channels - 1) // 2]  # a component's numbers
        self.network = MaskedNetwork(context_width, pixels, channels, width)
        self.mixture = nn.Linear(width, mixture_components * sum(self.sizes))
        self.linear = nn.Linear(pixels * channels, pixels * channels, bias=False)
        self.register_buffer("below", below(pixels, channels, channels), persistent=False)
        self._spread()

    @torch.no_grad()
    def _spread(self) -> None:
        """Start nearly uniform: components side by side on the grey axis, each as wide as the distance to the next."""
        nn.init.zeros_(self.mixture.weight)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.mixture.bias)
        _, means, log_scales, _ = self.mixture.bias.view(self.mixture_components, -1).split(self.sizes, -1)
        distance = 2 / self.mixture_components
        means += torch.linspace(distance / 2 - 1, 1 - distance / 2, self.mixture_components)[:, None]
        log_scales += torch.tensor(distance / 2).log()

    def components(self, context: Tensor, tokens: Tensor, pixel: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (..., S, M), means and log-scales (..., S, M, C), float32; tokens (..., S, C) enter each mean as
        the pixel's earlier channels. Of one pixel alone: S is 1."""
        values, channels = scaled(tokens), self.shape[1]
        hidden = self.network(context, values, pixel)
        rows = slice(None) if pixel is None else slice(pixel * channels, (pixel + 1) * channels)
        with torch.autocast(hidden.device.type, enabled=False):  # a mean in bfloat16 would be two levels wide
            numbers = self.mixture(hidden.float()).unflatten(-1, (self.mixture_components, -1))  # (..., S, M, ·)
            shift = F.linear(values.flatten(-2), self.linear.weight[rows] * self.below[rows])
        logits, means, log_scales, coefficients = numbers.split(self.sizes, -1)
        means = means + shift.unflatten(-1, (-1, channels))[..., None, :]
        slopes = coefficients.tanh()  # (..., S, M, 3)
        known = (values if pixel is None else values[..., [pixel], :])[..., None, :]  # (..., S, 1, C)
        shifted, used = [means[..., 0]], 0
        for c in range(1, channels):
            shifted.append(means[..., c] + (slopes[..., used : used + c] * known[..., :c]).sum(-1))
            used += c
        return logits[..., 0].log_softmax(-1), torch.stack(shifted, -1), log_scales.clamp(*LOG_SCALES)

    def read(self, tokens: Tensor) -> Tensor:
        return scaled(tokens)

    def nll(self, context: Tensor, tokens: Tensor) -> Tensor:
        weights, means, log_scales = self.components(context, tokens)
        likelihoods = discretised_logistic(tokens[..., None, :], means, log_scales)  # (..., S, M, C)
        return -(weights + likelihoods.sum(-1)).logsumexp(-1)

    def log_probabilities(self, context: Tensor, tokens: Tensor, index: tuple[int, ...]) -> Tensor:
        s, c = index
        weights, means, log_scales = (n.squeeze(context.ndim - 1) for n in self.components(context, tokens, s))
        before = discretised_logistic(tokens[..., s, None, :c], means[..., :c], log_scales[..., :c])  # (..., M, c)
        weights = (weights + before.sum(-1)).log_softmax(-1)  # which component, after the channels seen
        every = torch.arange(LEVELS, device=tokens.device)
        likelihoods = discretised_logistic(every, means[..., c, None], log_scales[..., c, None])  # (..., M, 256)
        return (weights[..., None] + likelihoods).logsumexp(-2)


def discretised_logistic(values: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Logarithm of the mass that a logistic distribution on the scale from −1 to 1 puts on 8-bit values.

    The mass of a bin between two edges is σ(a) − σ(b); all beyond the outermost edges belongs to 0 and 255. With
    σ(a) − σ(b) = (1 − e^(b−a)) · σ(a) · σ(−b) nothing is subtracted that could cancel: far from the mean the logarithm
    falls linearly, and its gradient stays, where PixelCNN++ takes an approximation.
    """
    centred, precision = scaled(values) - means, torch.exp(-log_scales)
    # log σ(x) = −softplus(−x), and 1 − e^(−2h) = tanh(h) · (1 + e^(−2h)): forms that stay exact in an ONNX graph too
    under = -F.softplus(-(centred + HALF_BIN) * precision)  # the mass below the bin's upper edge
    over = -F.softplus((centred - HALF_BIN) * precision)  # the mass above its lower edge
    half = HALF_BIN * precision
    width = torch.tanh(half).log() + F.softplus(-2 * half)
    highest, lowest = values == LEVELS - 1, values == 0
    return under.masked_fill(highest, 0) + over.masked_fill(lowest, 0) + width.masked_fill(highest | lowest, 0)
