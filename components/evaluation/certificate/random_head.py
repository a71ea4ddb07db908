"""A random linear head on frozen features: what its Gaussian is learned from, and how often it errs.

A view with features x is represented by Wx / ‖Wx‖. The loss of a tuple (x, x⁺, x₁⁻ … x_k⁻), two views of an image and
one each of k others, is 1 where some negative is at least as similar to x as x⁺ is, else 0.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from components.evaluation.certificate.pac_bayes import gaussian_kl
from components.objectives.contrastive.nt_xent.term import nt_xent

HEAD_SIZE, TEMPERATURE = 32, 0.2
PRIOR_STEPS, PRIOR_BATCH, PRIOR_RATE = 300, 128, 0.01
POSTERIOR_STEPS = 200


class Tuples(NamedTuple):
    """m tuples of features."""

    anchor: Tensor  # (m, D)
    positive: Tensor  # (m, D)
    negatives: Tensor  # (m, k, D)


class Gaussian(NamedTuple):
    """A distribution over heads: independent normal weights."""

    mean: Tensor  # (P, D)
    std: Tensor  # (P, D)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One head (P, D)."""
        return self.mean + self.std * torch.randn(self.mean.shape, generator=generator)


def learn_head(views: Tensor, generator: torch.Generator) -> Tensor:
    """A head W_P (P, D) with root mean square 1, by NT-Xent on features of views (n, A, D) with Adam."""
    n, a, size = views.shape
    weights = torch.randn(HEAD_SIZE, size, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=PRIOR_RATE)
    for _ in range(PRIOR_STEPS):
        chosen = torch.randperm(n, generator=generator)[:PRIOR_BATCH]
        pair = torch.rand(len(chosen), a, generator=generator).argsort(1)[:, :2]
        batch = views[chosen[:, None], pair].transpose(0, 1).flatten(0, 1)  # (2·B, D)
        optimizer.zero_grad()
        nt_xent(F.normalize(batch @ weights.T, dim=1), TEMPERATURE).backward()
        optimizer.step()
    return (weights / weights.square().mean().sqrt()).detach()


def learn_posterior(prior: Gaussian, views: Tensor, negatives: int, lam: float, generator: torch.Generator) -> Gaussian:
    """Q with a small E_{W~Q} L̂(W) + KL(Q‖P)/λ on features of views (n, A, D).

    Gradient descent in units of σ_P, where the KL term's curvature is 1/λ for every weight, with steps λ/t that average
    the gradients' noise: an optimizer with a step a weight would spend KL on the noise of thousands of weights.
    """
    shift = torch.zeros_like(prior.mean).requires_grad_()
    log_ratio = torch.zeros_like(prior.mean).requires_grad_()
    prior_std = float(prior.std[0, 0])
    for step in range(POSTERIOR_STEPS):
        mean, std = prior.mean + prior.std * shift, prior.std * log_ratio.exp()
        tuples = draw_tuples(views, negatives, generator)
        loss = logistic_loss(Gaussian(mean, std).sample(generator), tuples).mean()
        objective = loss + gaussian_kl(mean, std, prior.mean, prior_std) / lam
        slopes = torch.autograd.grad(objective, (shift, log_ratio))
        with torch.no_grad():
            for parameter, slope in zip((shift, log_ratio), slopes, strict=True):
                parameter -= lam / (step + 10) * slope
    return Gaussian((prior.mean + prior.std * shift).detach(), (prior.std * log_ratio.exp()).detach())


@torch.no_grad()
def gibbs_risk(q: Gaussian, views: Tensor, negatives: int, draws: int, generator: torch.Generator) -> float:
    """The mean loss over independent draws of a head, a partition of the images into tuples, and their views."""
    total = 0.0
    for _ in range(draws):
        total += float(zero_one_loss(q.sample(generator), draw_tuples(views, negatives, generator)).mean())
    return total / draws


def draw_tuples(views: Tensor, negatives: int, generator: torch.Generator) -> Tuples:
    """⌊n/(k+1)⌋ tuples of features of views (n, A, D). No image is in two of them; x and x⁺ are two different views."""
    n, a, _ = views.shape
    m = n // (negatives + 1)
    image = torch.randperm(n, generator=generator)[: m * (negatives + 1)].view(m, -1)  # (m, k + 1)
    pair = torch.rand(m, a, generator=generator).argsort(1)  # (m, A)
    single = torch.randint(a, (m, negatives), generator=generator)
    own = image[:, 0]
    return Tuples(views[own, pair[:, 0]], views[own, pair[:, 1]], views[image[:, 1:], single])


def zero_one_loss(weights: Tensor, tuples: Tuples) -> Tensor:
    """1 where a negative is at least as similar to the anchor as the positive is, else 0: float (m,)."""
    positive, negatives = _similarities(weights, tuples)
    return (~(negatives < positive[:, None])).any(1).float()  # NaN is an error too


def logistic_loss(weights: Tensor, tuples: Tuples) -> Tensor:
    """log₂(1 + Σ_j exp((s_j⁻ − s⁺)/τ)) of each tuple (m,): never below the zero-one loss."""
    positive, negatives = _similarities(weights, tuples)
    exponents = (negatives - positive[:, None]) / TEMPERATURE  # (m, k)
    return F.pad(exponents, (1, 0)).logsumexp(1) / math.log(2)


def _similarities(weights: Tensor, tuples: Tuples) -> tuple[Tensor, Tensor]:
    """Cosines of the anchors with their positives (m,) and negatives (m, k)."""
    anchor, positive, negatives = (F.normalize(x @ weights.T, dim=-1) for x in tuples)
    return (anchor * positive).sum(1), torch.einsum("mp,mkp->mk", anchor, negatives)
