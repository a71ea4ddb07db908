"""The objective's terms: `(what the model gives, configuration) → (loss, {metric: value})`, listed in one dict a kind.

A new term is a function in a file of its own, a line here and its configuration in config.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from components.objectives.config import ContrastiveConfig, GenerativeConfig, VariantConfig
from components.objectives.nt_xent import nt_xent

Term = tuple[Tensor, dict[str, Tensor]]


def nt_xent_term(projections: Tensor, config: ContrastiveConfig) -> Term:
    """NT-Xent on projections (V, B, P), and how often a view's nearest other view is of the same image."""
    views, images, _ = projections.shape
    z = projections.flatten(0, 1)
    nearest = (z @ z.T).detach().fill_diagonal_(-2.0).argmax(1)  # (V·B,)
    hits = nearest % images == torch.arange(len(z), device=z.device) % images
    return nt_xent(z, config.temperature, views), {"contrastive_accuracy": hits.float().mean()}


def autoregressive_term(nll: Tensor, config: GenerativeConfig) -> Term:
    """Mean negative log-likelihood in nats a token (Chen et al. 2020, iGPT, equation 2) of each token's (n, T, S)."""
    return nll.mean(), {}


CONTRASTIVE: dict[str, Callable[[Tensor, ContrastiveConfig], Term]] = {"nt_xent": nt_xent_term}
GENERATIVE: dict[str, Callable[[Tensor, GenerativeConfig], Term]] = {"autoregressive": autoregressive_term}


def contrastive_loss(projections: Tensor, variant: VariantConfig) -> Term:
    """The weighted contrastive loss of projections (V, B, P), and its metrics (the unweighted loss included)."""
    loss, metrics = CONTRASTIVE[variant.contrastive.name](projections, variant.contrastive)
    return variant.w_con * loss, {"contrastive_loss": loss.detach(), **metrics}


def generative_loss(nll: Tensor, variant: VariantConfig) -> Term:
    """The weighted generative loss of token likelihoods (n, T, S), and its metrics (the unweighted loss included)."""
    loss, metrics = GENERATIVE[variant.generative.name](nll, variant.generative)
    return variant.w_gen * loss, {"nll_nats_per_token": loss.detach(), **metrics}
