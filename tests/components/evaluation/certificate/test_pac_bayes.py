import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm
from torch.distributions import Independent, Normal, kl_divergence

from components.evaluation.certificate.pac_bayes import (
    best_lambda,
    catoni,
    chernoff_upper,
    complexity,
    gaussian_kl,
    kl_bernoulli,
    kl_inverse,
)

RISKS = st.floats(0.001, 0.95)
DIVERGENCES = st.floats(0, 200)
SIZES = st.integers(1, 5000)
DELTAS = st.floats(0.001, 0.5)
REPEATS = 400


def bound(risk: float, kl: float, m: int, delta: float) -> float:
    return kl_inverse(risk, complexity(kl, m, delta) / m)


def test_each_term_is_the_formulas():
    risk, kl, m, delta, lam = 0.07, 3.2, 150, 0.05, 210.0
    term = kl + math.log(2 * math.sqrt(150) / 0.05)
    assert complexity(kl, m, delta) == pytest.approx(term)
    expected = (1 - math.exp(-(lam / m) * risk - term / m)) / (1 - math.exp(-lam / m))
    assert catoni(risk, term, m, lam) == pytest.approx(expected, rel=1e-12)


@given(RISKS, DIVERGENCES, SIZES, DELTAS)
def test_the_least_bound_over_lambda_is_the_inverse_of_kl(risk, kl, m, delta):
    price = complexity(kl, m, delta)
    least = bound(risk, kl, m, delta)
    assert catoni(risk, price, m, m * np.geomspace(1e-3, 30, 2000)).min() >= least - 1e-9
    lam = best_lambda(risk, price, m)
    if math.isfinite(lam):
        assert catoni(risk, price, m, lam) == pytest.approx(least, rel=1e-6)


@given(st.floats(0, 0.99), st.floats(1e-4, 20))
def test_inverse_of_kl_is_the_root_above(q, limit):
    p = kl_inverse(q, limit)
    assert q <= p <= 1
    if kl_bernoulli(q, 1 - 1e-12) > limit:
        assert p == pytest.approx(brentq(lambda x: kl_bernoulli(q, x) - limit, max(q, 1e-15), 1 - 1e-12), abs=1e-9)
        assert kl_bernoulli(q, p) >= limit * (1 - 1e-9)  # rounded up


def test_without_errors_the_inverse_has_a_closed_form():
    assert kl_inverse(0.0, 0.3) == pytest.approx(1 - math.exp(-0.3))
    assert kl_inverse(1.0, 0.3) == 1


@given(RISKS, DIVERGENCES, SIZES, DELTAS)
def test_the_bound_grows_with_risk_and_kl_and_shrinks_with_m_and_delta(risk, kl, m, delta):
    here = bound(risk, kl, m, delta)
    assert risk <= here <= 1
    assert bound(min(1, risk + 0.01), kl, m, delta) >= here
    assert bound(risk, kl + 1, m, delta) >= here
    assert bound(risk, kl, m + 1, delta) <= here
    assert bound(risk, kl, m, delta * 1.5) <= here


@pytest.mark.parametrize("m", [*range(1, 30), 100, 1000])
def test_the_root_of_m_pays_for_every_lambda(m):
    """E exp(m·kl(R̂‖R)) of a binomial R̂ is at most 2√m for every m ≥ 1; it is the same for all R."""
    k = np.arange(1, m)
    inner = sum(math.exp(math.lgamma(m + 1) - math.lgamma(i + 1) - math.lgamma(m - i + 1)
                + i * math.log(i / m) + (m - i) * math.log1p(-i / m)) for i in k)  # fmt: skip
    assert math.sqrt(m) <= 2 + inner <= 2 * math.sqrt(m) + 1e-9


@pytest.mark.parametrize("heads", [0.2, 0.5])
def test_an_average_over_all_partitions_keeps_the_moment(heads):
    """Every outcome of 8 coins. A pair's loss is whether the two differ; a partition holds m = 4 independent pairs."""
    n, m = 8, 4
    risk, moment, moment_of_pairs = 2 * heads * (1 - heads), 0.0, 0.0
    for coins in itertools.product((0, 1), repeat=n):
        probability = heads ** sum(coins) * (1 - heads) ** (n - sum(coins))
        losses = [abs(a - b) for a, b in itertools.combinations(coins, 2)]
        moment += probability * math.exp(m * kl_bernoulli(float(np.mean(losses)), risk))
        moment_of_pairs += probability * math.exp(len(losses) * kl_bernoulli(float(np.mean(losses)), risk))
    assert moment <= 2 * math.sqrt(m)
    assert moment_of_pairs > 2 * math.sqrt(len(losses))  # all 28 pairs are not 28 independent ones


def test_kl_of_gaussians_is_torchs():
    generator = torch.Generator().manual_seed(0)
    mean, prior_mean = torch.randn(2, 5, 7, generator=generator)
    std = torch.rand(5, 7, generator=generator) + 0.1
    q = Independent(Normal(mean, std), 2)
    p = Independent(Normal(prior_mean, torch.full_like(std, 0.3)), 2)
    assert float(gaussian_kl(mean, std, prior_mean, 0.3)) == pytest.approx(float(kl_divergence(q, p)), rel=1e-5)
    assert float(gaussian_kl(prior_mean, torch.full_like(std, 0.3), prior_mean, 0.3)) == pytest.approx(0, abs=1e-5)


def test_monte_carlo_estimates_are_rarely_above_their_upper_bound():
    rng = np.random.default_rng(0)
    for p, draws, delta in ((0.01, 200, 0.1), (0.3, 50, 0.05), (0.9, 20, 0.2)):
        means = rng.binomial(draws, p, 4000) / draws
        violated = np.mean([chernoff_upper(float(mean), draws, delta) < p for mean in means])
        assert violated <= delta
    assert chernoff_upper(0.1, 100, 0.05) < chernoff_upper(0.1, 100, 0.01) < chernoff_upper(0.1, 50, 0.01)


@pytest.mark.parametrize(("m", "delta"), [(10, 0.1), (40, 0.05)])
def test_the_bound_holds_where_the_true_risk_is_known(m, delta):
    """Z is uniform, a predictor w errs where Z < Φ(w): under N(μ, σ²) its Gibbs risk is Φ(μ/√(1 + σ²)). The posterior
    is the one of 33 that looks best on the data."""
    rng = np.random.default_rng(0)
    means, stds = (grid.ravel() for grid in np.meshgrid(np.linspace(-2.5, 0.5, 11), (0.3, 0.6, 1.0)))
    kl = 0.5 * (means**2 + stds**2 - 1 - np.log(stds**2))  # to N(0, 1)
    true = norm.cdf(means / np.sqrt(1 + stds**2))
    violated, overfitted, bounds = 0, 0, []
    for _ in range(REPEATS):
        z = norm.ppf(rng.random(m))
        empirical = norm.cdf((means[:, None] - z) / stds[:, None]).mean(1)  # (33,)
        each = [bound(float(r), float(d), m, delta) for r, d in zip(empirical, kl, strict=True)]
        best = int(np.argmin(each))
        violated += each[best] < true[best]
        overfitted += empirical[best] < true[best]
        bounds.append(each[best])
    assert violated / REPEATS <= delta
    assert overfitted / REPEATS > 0.3  # the empirical risk alone is no bound
    assert np.mean(bounds) < (0.6 if m == 40 else 0.9)
