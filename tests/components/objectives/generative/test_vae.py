import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from components.objectives.base import TrainingSet
from components.objectives.generative.vae import VAEConfig
from components.objectives.generative.vae.term import VAE, gaussian_kl

DATA = TrainingSet(np.zeros((4, 2, 2, 1), np.uint8))
# every image of 2×2 pixels in three colours, one token a pixel
IMAGES = torch.tensor(list(itertools.product(range(3), repeat=4)))[..., None]  # (81, 4, 1)
GRID = torch.linspace(-8, 8, 801)  # of the noise, or of a one-dimensional code
DENSITY = Normal(0.0, 1.0).log_prob(GRID) + math.log(float(GRID[1] - GRID[0]))  # of a grid point's cell


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(w_gen=0)


@pytest.fixture(scope="module")
def term(model, moved):
    """With a code of one dimension, over which one can integrate; q(z|x) is wide enough to do that with its noise."""
    torch.manual_seed(0)
    term = moved(VAE(VAEConfig(latent_size=1, beta=1), model, DATA))
    with torch.no_grad():
        term.posterior.bias[1] = 1
    return term


@pytest.fixture(scope="module")
def posterior(model, term) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return term.code(model.pool(model.encode(IMAGES)))  # (81, 1) each


@pytest.fixture(scope="module")
def log_likelihood(term) -> Tensor:
    """log p(x) = log ∫ p(z) p(x|z) dz of every image (81,), by the decoder alone."""
    with torch.no_grad():
        each = [-term.decoder.nll(GRID[:, None], x.expand(len(GRID), -1, -1)).sum((1, 2)) for x in IMAGES]
    return (torch.stack(each) + DENSITY).logsumexp(1)


@pytest.fixture(scope="module")
def log_weights(term, posterior) -> Tensor:
    """log p(x, z) − log q(z|x) (81, grid) where the noise is that of the grid."""
    with torch.no_grad():
        return torch.stack([term.explain(*posterior, IMAGES, e.expand(81, 1))[1] for e in GRID], 1)


@given(st.integers(1, 5), st.integers(0, 999))
def test_the_kl_is_that_of_the_public_library(size, seed):
    mean, log_variance = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(seed))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected, atol=1e-5, rtol=1e-5)


def test_the_decoder_is_a_distribution_over_images(log_likelihood):
    assert log_likelihood.exp().sum().item() == pytest.approx(1, abs=1e-4)
    assert log_likelihood.std() > 0.1  # and none that makes all alike


def test_the_weights_of_codes_average_to_the_likelihood(log_likelihood, log_weights):
    torch.testing.assert_close((log_weights + DENSITY).logsumexp(1), log_likelihood, atol=1e-3, rtol=0)


def test_the_loss_is_a_bound_on_the_likelihood(model, term, log_likelihood, log_weights, posterior):
    """What is missing is the KL between q(z|x) and the true p(z|x)."""
    term.train()
    losses = []
    for noise in GRID:
        with torch.no_grad():
            values = term.represent(model, IMAGES, torch.zeros(81, 1), noise.expand(81, 1, 1), 81)[1]
            losses.append(values[:, 0] + values[:, 1])
        assert term(values)[0].item() == pytest.approx(losses[-1].mean().item(), rel=1e-5)
    elbo = -4 * (torch.stack(losses, 1) * DENSITY.exp()).sum(1)  # four tokens an image
    assert (elbo < log_likelihood).all()
    gap = ((log_likelihood[:, None] - log_weights) * DENSITY.exp()).sum(1)  # the mean of log q(z|x) − log p(z|x)
    torch.testing.assert_close(log_likelihood - elbo, gap, atol=1e-3, rtol=1e-3)


def test_the_bound_from_many_codes_is_tighter(model, term, log_likelihood):
    term.eval()
    with torch.no_grad():

        def bounds(codes: int) -> Tensor:
            noise = torch.randn(81, codes, 1, generator=torch.Generator().manual_seed(0))
            return 4 * term.represent(model, IMAGES, torch.zeros(81, 1), noise, 81)[1]  # nats an image

        some, many = bounds(8), bounds(1000)
    elbo, exact = (many[:, 0] + many[:, 1]).mean(), -log_likelihood.mean()
    assert exact < some[:, 2].mean() < elbo
    assert (many[:, 2] + log_likelihood).abs().mean() < 0.1


def test_what_is_logged_is_named_after_what_it_is(term):
    values = torch.tensor([[1.0, 0.5, 1.2], [2.0, 0.5, 1.8]])
    loss, training = term.train()(values)
    _, validation = term.eval()(values)
    assert loss.item() == pytest.approx(2)
    assert training["bits_per_dim_bound"].item() == pytest.approx(2 / math.log(2))
    assert validation["bits_per_dim_bound_iwae"].item() == pytest.approx(1.5 / math.log(2))
    assert set(validation) - set(training) == {"bits_per_dim_bound_iwae"}


def test_beta_weighs_the_kl_and_no_bound(model, term):
    heavy = VAE(VAEConfig(latent_size=1, beta=3), model, DATA)
    values = torch.tensor([[1.0, 0.5, 1.2]])
    assert heavy(values)[0].item() == pytest.approx(2.5)
    assert heavy(values)[1]["bits_per_dim_bound"] == term(values)[1]["bits_per_dim_bound"]


def test_the_gradient_goes_through_the_drawn_code(model, term):
    """Against finite differences: the noise is drawn once, the code moves with its mean and variance."""
    term.train()
    noise = torch.randn(81, 1, 1, generator=torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        return term(term.represent(model, IMAGES, torch.zeros(81, 1), noise, 81)[1])[0]

    weight, step = term.posterior.weight, 1e-2
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(loss(), [weight])
    with torch.no_grad():
        weight += step * direction
        above = loss()
        weight -= 2 * step * direction
        below = loss()
        weight += step * direction
    assert (gradient * direction).sum().item() == pytest.approx(((above - below) / (2 * step)).item(), rel=0.02)


def test_more_codes_are_drawn_in_evaluation_mode(term):
    generator = torch.Generator()
    assert term.train().draw(2, 3, generator).shape == (2, 3, 1, 1)
    assert term.eval().draw(2, 3, generator).shape == (2, 3, 8, 1)
