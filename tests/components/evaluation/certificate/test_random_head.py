import math

import pytest
import torch

from components.evaluation.certificate.pac_bayes import gaussian_kl
from components.evaluation.certificate.random_head import (
    TEMPERATURE,
    Gaussian,
    Tuples,
    draw_tuples,
    gibbs_risk,
    learn_head,
    learn_posterior,
    logistic_loss,
    zero_one_loss,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features_of(n: int, noise: float, seed: int = 0, views: int = 4, size: int = 6) -> torch.Tensor:
    """Views (n, A, D) of images that have a code each: the code in the first half, noise in both."""
    g = generator(seed)
    code = torch.cat([torch.randn(n, 1, size // 2, generator=g), torch.zeros(n, 1, size - size // 2)], 2)
    return code + noise * torch.randn(n, views, size, generator=g)


@pytest.mark.parametrize(("n", "negatives"), [(9, 1), (10, 1), (11, 2), (12, 3)])
def test_no_image_is_in_two_tuples_and_no_view_is_its_own_positive(n, negatives):
    views = torch.arange(n * 3).view(n, 3, 1)  # view v of image i is the number 3·i + v
    g = generator()
    pairs = set()
    for _ in range(50):
        tuples = draw_tuples(views, negatives, g)
        assert tuples.negatives.shape == (n // (negatives + 1), negatives, 1)
        assert (tuples.anchor != tuples.positive).all()
        assert (tuples.anchor // 3 == tuples.positive // 3).all()
        images = torch.cat([tuples.anchor, tuples.negatives[:, :, 0]], 1) // 3
        assert len(images.unique()) == images.numel()
        pairs |= {tuple(row) for row in images.tolist()}
    assert len(pairs) > n  # other partitions every time


@pytest.mark.parametrize("negatives", [1, 3])
def test_losses_are_those_of_a_naive_loop(negatives):
    tuples = draw_tuples(features_of(24, 1.0), negatives, generator())
    weights = torch.randn(5, 6, generator=generator(1))
    zero_one, logistic = zero_one_loss(weights, tuples), logistic_loss(weights, tuples)
    assert len(zero_one) == 24 // (negatives + 1)
    for i in range(len(zero_one)):
        x, y = weights @ tuples.anchor[i], weights @ tuples.positive[i]
        others = [weights @ z for z in tuples.negatives[i]]
        positive = float(x @ y / x.norm() / y.norm())
        similarities = [float(x @ z / x.norm() / z.norm()) for z in others]
        assert float(zero_one[i]) == (max(similarities) >= positive)
        exponents = [math.exp((s - positive) / TEMPERATURE) for s in similarities]
        assert float(logistic[i]) == pytest.approx(math.log2(1 + sum(exponents)), rel=1e-3, abs=1e-6)
    assert (logistic >= zero_one - 1e-6).all()
    assert 0 < zero_one.mean() < 1


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_what_tells_nothing_apart_errs(value):
    same = Tuples(torch.full((3, 6), value), torch.full((3, 6), value), torch.full((3, 2, 6), value))
    assert zero_one_loss(torch.ones(2, 6), same).tolist() == [1, 1, 1]


def test_gibbs_risk_is_that_of_all_tuples_where_heads_are_alike():
    """Without randomness in the head it is the mean over every ordered pair of images and every choice of views."""
    views, weights = features_of(6, 1.0, views=2), torch.randn(3, 6, generator=generator(2))
    errors = []
    for i in range(6):
        for j in set(range(6)) - {i}:
            for v in range(2):
                for u in range(2):
                    one = Tuples(views[i, v][None], views[i, 1 - v][None], views[j, u][None, None])
                    errors.append(float(zero_one_loss(weights, one)))
    risk = gibbs_risk(Gaussian(weights, torch.zeros_like(weights)), views, 1, 4000, generator())
    assert 0.05 < risk < 0.5
    assert risk == pytest.approx(sum(errors) / len(errors), abs=0.015)


@pytest.mark.trains
def test_a_learned_head_finds_what_views_share():
    views = features_of(300, 0.7)
    views[:, :, 3:] *= 3  # where there is nothing but noise
    head = learn_head(views[:200], generator())
    random = torch.randn(head.shape, generator=generator(3))
    risk, before = (
        gibbs_risk(Gaussian(mean, torch.zeros_like(mean)), views[200:], 1, 200, generator()) for mean in (head, random)
    )
    assert float(head.square().mean()) == pytest.approx(1, rel=1e-5)
    assert risk < 0.8 * before


@pytest.mark.trains
@pytest.mark.parametrize("lam", [20.0, 500.0])
def test_the_posterior_lowers_the_objective(lam):
    """A price of KL that is worth it: the prior's head looks at noise as much as at codes."""
    views = features_of(200, 0.7)
    prior = Gaussian(torch.randn(8, 6, generator=generator(1)), torch.full((8, 6), 0.3))

    def objective(q: Gaussian) -> tuple[float, float]:
        g = generator(5)
        losses = [float(logistic_loss(q.sample(g), draw_tuples(views, 1, g)).mean()) for _ in range(400)]
        kl = float(gaussian_kl(q.mean, q.std, prior.mean, 0.3))
        return sum(losses) / 400 + kl / lam, kl

    posterior = learn_posterior(prior, views, 1, lam, generator())
    after, kl = objective(posterior)
    assert after < objective(prior)[0]
    assert 0 < kl < lam
    assert (posterior.std > 0).all()
