"""The momentum encoder of MoCo (He et al. 2020, arXiv 1911.05722, equation 2) and of what came after it."""

import copy

import torch
from torch import Tensor, nn

from components.model.gcrl import GCRL


class MomentumEncoder(nn.Module):
    """An exponential moving average of encoder and projection head, equal to them at first. It takes no gradient.

    Only parameters are averaged. The head's batch statistics are those of the batch that it projects.
    """

    def __init__(self, model: GCRL) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).train()
        self.model.condition = self.model.decoder = self.model.decoder_norm = self.model.head = None
        self.model.next_position = self.model.reduced = None

    def features(self, tokens: Tensor) -> Tensor:
        """Features (n, D) of views (n, T, S, ...)."""
        return self.model.features(tokens)

    @torch.no_grad()
    def project(self, features: Tensor) -> Tensor:
        """L2-normalised keys (V, B, P) of a whole batch's features (V, B, D)."""
        return self.model.project(features.flatten(0, 1)).unflatten(0, features.shape[:2])

    @torch.no_grad()
    def follow(self, model: GCRL, momentum: float) -> None:
        """θ ← m θ + (1 − m) θ_model."""
        names, averages = zip(*self.model.named_parameters(), strict=True)
        theirs = dict(model.named_parameters())
        torch._foreach_lerp_(averages, [theirs[name] for name in names], 1 - momentum)
