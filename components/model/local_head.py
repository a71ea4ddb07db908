"""The exact likelihood of a patch's tokens given its context: a small masked network over the patch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalHead(nn.Module):
    """p(patch | context) = Π_i p(token_i | tokens < i in the patch, context), all factors in one pass.

    A MADE (Germain et al. 2015, arXiv 1502.03509, section 4) whose units are blocks, one a token: block-triangular
    weights let position i see the embeddings of tokens j < i, never its own. With one token a patch (S = 1) nothing is
    left but a conditional softmax, iGPT's.
    """

    below: Tensor
    upto: Tensor

    def __init__(self, context_width: int, tokens: int, colours: int, width: int) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.embedding = nn.Embedding(colours, width)
        self.context = nn.Linear(context_width, tokens * width)
        self.first = nn.Linear(tokens * width, tokens * width, bias=False)
        self.second = nn.Linear(tokens * width, tokens * width)
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, colours)
        order = torch.arange(tokens).repeat_interleave(width)
        self.register_buffer("below", order[:, None] > order[None, :], persistent=False)  # rows: outputs
        self.register_buffer("upto", order[:, None] >= order[None, :], persistent=False)
        nn.init.zeros_(self.logits.weight)  # with the bias: the first prediction is uniform, log K nats a token
        nn.init.zeros_(self.logits.bias)

    def forward(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Logits (..., S, K) for contexts (..., D) and tokens (..., S)."""
        embedded = self.embedding(tokens).flatten(-2)  # (..., S·E)
        hidden = self.context(context) + F.linear(embedded, self.first.weight * self.below)
        hidden = hidden + F.linear(F.gelu(hidden), self.second.weight * self.upto, self.second.bias)
        return self.logits(F.gelu(self.norm(hidden.unflatten(-1, (self.tokens, self.width)))))

    def nll(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Negative log-likelihood in nats of each token, float32 (..., S)."""
        likelihood = self(context, tokens).float().log_softmax(-1)  # (..., S, K)
        return -likelihood.gather(-1, tokens[..., None]).squeeze(-1)
