"""The objective's terms: `(model outputs, configuration) → (loss, {metric: value})`, listed in one dict a kind.

A new term is a function in a file of its own, a line here and its configuration in config.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from components.model.gcrl import Outputs
from components.objectives.config import ContrastiveConfig, GenerativeConfig, VariantConfig
from components.objectives.nt_xent import nt_xent

Term = tuple[Tensor, dict[str, Tensor]]


def nt_xent_term(outputs: Outputs, config: ContrastiveConfig) -> Term:
    """NT-Xent on the projections, and how often a view's nearest other view is its positive."""
    assert outputs.projections is not None
    z = outputs.projections
    nearest = (z @ z.T).detach().fill_diagonal_(-2.0).argmax(1)  # (2B,)
    hits = nearest == torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return nt_xent(z, config.temperature), {"contrastive_accuracy": hits.float().mean()}


def autoregressive_term(outputs: Outputs, config: GenerativeConfig) -> Term:
    """Mean negative log-likelihood in nats a token (Chen et al. 2020, iGPT, equation 2)."""
    assert outputs.nll is not None
    return outputs.nll.mean(), {}


CONTRASTIVE: dict[str, Callable[[Outputs, ContrastiveConfig], Term]] = {"nt_xent": nt_xent_term}
GENERATIVE: dict[str, Callable[[Outputs, GenerativeConfig], Term]] = {"autoregressive": autoregressive_term}


def losses(outputs: Outputs, variant: VariantConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weighted loss of each term that the variant has, and every metric (unweighted losses included)."""
    weighted: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}
    if variant.w_gen:
        loss, more = GENERATIVE[variant.generative.name](outputs, variant.generative)
        weighted["generative"] = variant.w_gen * loss
        metrics |= {"nll_nats_per_token": loss.detach()} | more
    if variant.w_con:
        loss, more = CONTRASTIVE[variant.contrastive.name](outputs, variant.contrastive)
        weighted["contrastive"] = variant.w_con * loss
        metrics |= {"contrastive_loss": loss.detach()} | more
    return weighted, metrics
