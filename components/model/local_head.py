"""The exact likelihood of a patch's tokens given its context: a small masked network over the patch."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalHead(nn.Module, ABC):
    """p(patch | context) = Π_i p(token_i | tokens < i in the patch, context), all factors in one pass.

    `shape` is a patch's: (S,) where a token is a pixel, (S, C) where it is a sub-pixel; the order is the tokenizer's.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def read(self, tokens: Tensor) -> Tensor:
        """What networks are told of the pixels (..., S, I) of tokens (..., *shape)."""

    @abstractmethod
    def nll(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Negative log-likelihood in nats a pixel, float32 (..., S), for contexts (..., D) and tokens (..., *shape)."""

    @abstractmethod
    def log_probabilities(self, context: Tensor, tokens: Tensor, index: tuple[int, ...]) -> Tensor:
        """Logarithms of the distribution (..., V) of the token at an index of `shape`, given the tokens before it;
        those at the index and after it do not matter."""


PARTS = 4  # of many elements, whose zero weights are left out of products: 5/8 of the work


class MaskedNetwork(nn.Module):
    """A MADE (Germain et al. 2015, arXiv 1502.03509, section 4) whose units are blocks, one for each of the patch's
    elements: block-triangular weights let element i see what is known of elements j < i, never of its own."""

    below: Tensor
    upto: Tensor

    def __init__(self, context_width: int, elements: int, inputs: int, width: int) -> None:
        super().__init__()
        self.elements, self.width = elements, width
        self.context = nn.Linear(context_width, elements * width)
        self.first = nn.Linear(elements * inputs, elements * width, bias=False)
        self.second = nn.Linear(elements * width, elements * width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("below", below(elements, width, inputs), persistent=False)
        self.register_buffer("upto", below(elements, width, width, itself=True), persistent=False)

    def forward(self, context: Tensor, known: Tensor, element: int | None = None) -> Tensor:
        """Hidden units (..., S, E) for contexts (..., D) and what is known of each element (..., S, I); of one element
        alone, (..., 1, E), for a fraction of the work."""
        hidden = self.context(context) + F.linear(known.flatten(-2), self.first.weight * self.below)
        seen = F.gelu(hidden)
        if element is not None:
            parts = [slice(element, element + 1)]
            hidden = hidden[..., element * self.width : (element + 1) * self.width]
        else:  # elements of an earlier part need nothing of a later one
            size = -(-self.elements // PARTS) if self.elements > PARTS else self.elements
            parts = [slice(first, min(first + size, self.elements)) for first in range(0, self.elements, size)]
        found = [self._second(seen, part.start * self.width, part.stop * self.width) for part in parts]
        hidden = hidden + (torch.cat(found, -1) if len(found) > 1 else found[0])
        return F.gelu(self.norm(hidden.unflatten(-1, (-1, self.width))))

    def _second(self, seen: Tensor, start: int, stop: int) -> Tensor:
        """What units start … stop − 1 take from units (..., S·E) of themselves and the elements before them."""
        weight = self.second.weight[start:stop, :stop] * self.upto[start:stop, :stop]
        return F.linear(seen[..., :stop], weight, self.second.bias[start:stop])


def below(elements: int, outputs: int, inputs: int, itself: bool = False) -> Tensor:
    """A mask (elements · outputs, elements · inputs) that lets each element see those before it (and itself)."""
    order = torch.arange(elements)
    seen = order[:, None] >= order if itself else order[:, None] > order
    return seen.repeat_interleave(outputs, 0).repeat_interleave(inputs, 1)


class CategoricalHead(LocalHead):
    """A softmax over all values of each token: palette indices, or 256 levels of each sub-pixel in the order R, G, B.

    With one token a patch nothing is left but a conditional softmax, iGPT's.
    """

    def __init__(self, context_width: int, shape: tuple[int, ...], values: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(values, width)
        self.network = MaskedNetwork(context_width, math.prod(shape), width, width)
        self.logits = nn.Linear(width, values)
        nn.init.zeros_(self.logits.weight)  # with the bias: the first prediction is uniform, log V nats a token
        nn.init.zeros_(self.logits.bias)

    def forward(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Logits (..., *shape, V) for contexts (..., D) and tokens (..., *shape)."""
        return self.logits(self.network(context, self._each(tokens))).unflatten(-2, self.shape)

    def read(self, tokens: Tensor) -> Tensor:
        return self._each(tokens).unflatten(-2, (-1, math.prod(self.shape[1:]))).flatten(-2)  # (..., S, C·E)

    def nll(self, context: Tensor, tokens: Tensor) -> Tensor:
        likelihood = self(context, tokens).float().log_softmax(-1)  # (..., *shape, V)
        nll = -likelihood.gather(-1, tokens[..., None]).squeeze(-1)
        return nll.flatten(context.ndim).sum(-1) if len(self.shape) > 1 else nll

    def log_probabilities(self, context: Tensor, tokens: Tensor, index: tuple[int, ...]) -> Tensor:
        element = index[0] if len(index) == 1 else index[0] * self.shape[1] + index[1]
        logits = self.logits(self.network(context, self._each(tokens), element))  # (..., 1, V)
        return logits.squeeze(-2).float().log_softmax(-1)

    def _each(self, tokens: Tensor) -> Tensor:
        """Each token's embedding (..., S·C, E)."""
        return self.embedding(tokens.flatten(-len(self.shape)))
