import itertools
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from components.model.logistic_mixture import LogisticMixtureHead, discretised_logistic

CONTEXT, WIDTH, MIXTURES = 5, 4, 3
EVERY = torch.arange(256)


def make_head(pixels: int, channels: int) -> LogisticMixtureHead:
    head = LogisticMixtureHead(CONTEXT, (pixels, channels), WIDTH, MIXTURES)
    generator = torch.Generator().manual_seed(pixels + channels)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.7 * torch.randn(parameter.shape, generator=generator)
    return head


def contexts(n: int) -> Tensor:
    return torch.randn(n, CONTEXT, generator=torch.Generator().manual_seed(0))


def patches(n: int, pixels: int, channels: int) -> Tensor:
    return torch.randint(256, (n, pixels, channels), generator=torch.Generator().manual_seed(1))


@given(st.floats(-5, 5), st.floats(-7, 7))
def test_the_masses_of_all_values_sum_to_one(mean, log_scale):
    masses = discretised_logistic(EVERY, torch.tensor(mean), torch.tensor(log_scale)).double().exp()
    assert masses.sum().item() == pytest.approx(1, abs=2e-4)


@given(st.floats(-1.5, 1.5), st.floats(-3, 3), st.integers(0, 255))
@example(-1.5, -3.0, 108)
def test_a_mass_is_the_difference_of_the_distribution_at_the_bins_edges(mean, log_scale, value):
    centre = value / 127.5 - 1
    side = 1 if centre < mean else -1  # from the nearer tail: the difference of two numbers close to 1 is inexact

    def beyond(edge: float) -> float:
        return 1 / (1 + math.exp(-side * (edge - mean) / math.exp(log_scale)))

    upper = float(side == 1) if value == 255 else beyond(centre + 1 / 255)
    lower = float(side == -1) if value == 0 else beyond(centre - 1 / 255)
    exact = torch.tensor(value), torch.tensor(mean, dtype=torch.double), torch.tensor(log_scale, dtype=torch.double)
    assert discretised_logistic(*exact).item() == pytest.approx(math.log(abs(upper - lower)), abs=1e-4)


@pytest.mark.parametrize("mean", [-1e4, -1.0, 0.0, 1.0, 1e4])
@pytest.mark.parametrize("log_scale", [-7.0, 0.0, 7.0])
def test_values_and_gradients_stay_finite_far_from_the_mean(mean, log_scale):
    means, scales = (torch.full((256,), x, requires_grad=True) for x in (mean, log_scale))
    mass = discretised_logistic(EVERY, means, scales)
    mass.sum().backward()
    assert mass.isfinite().all()
    assert means.grad.isfinite().all()
    assert scales.grad.isfinite().all()
    if mean == 1e4 and log_scale == -7:  # nothing is clipped: even there the gradient says where the data lies
        assert (means.grad[:255] < -1).all()


def test_extreme_weights_give_a_finite_loss_and_gradient():
    head = make_head(2, 3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter *= 1e3
    nll = head.nll(contexts(4), patches(4, 2, 3) // 128 * 255)  # 0 and 255 alone
    nll.mean().backward()
    assert nll.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_the_probabilities_of_all_grey_patches_of_two_pixels_sum_to_one():
    head = make_head(2, 1)
    every = torch.cartesian_prod(EVERY, EVERY)[..., None]  # (65,536, 2, 1)
    with torch.no_grad():
        log_p = -head.nll(contexts(1).expand(len(every), -1), every).double().sum(1)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-4)
    assert log_p.max() > log_p.min() + 1


@torch.no_grad()
def test_the_probabilities_of_all_rgb_pixels_sum_to_one():
    """256³ colours are too many: those of a red have that red's probability, and those of all reds sum to 1."""
    head = make_head(1, 3)
    red = head.log_probabilities(contexts(1), torch.zeros(1, 1, 3, dtype=torch.long), (0, 0))[0].double().exp()
    assert red.sum().item() == pytest.approx(1, abs=1e-5)
    for value in (0, 1, 100, 254, 255):
        every = torch.cartesian_prod(torch.tensor([value]), EVERY, EVERY)[:, None]  # (65,536, 1, 3)
        log_p = -head.nll(contexts(1).expand(len(every), -1), every).double()
        assert log_p.exp().sum().item() == pytest.approx(red[value].item(), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_the_likelihood_is_the_product_of_each_values_distribution_given_those_before_it(channels):
    head, tokens = make_head(4, channels), patches(6, 4, channels)
    found = torch.zeros(6, 4)
    for s, c in itertools.product(range(4), range(channels)):
        hidden = tokens.clone()
        hidden.flatten(1)[:, s * channels + c :] = 77
        distribution = head.log_probabilities(contexts(6), hidden, (s, c))  # (6, 256)
        found[:, s] -= distribution.gather(1, tokens[:, s, c, None])[:, 0]
    torch.testing.assert_close(head.nll(contexts(6), tokens), found, atol=1e-4, rtol=1e-4)


def naive_nll(head: LogisticMixtureHead, context: Tensor, patch: Tensor) -> list[float]:
    """One pixel, one component, one channel at a time, in double precision; pixels from the current one on are hidden
    from the network instead of masked."""

    def cdf(x: float) -> float:
        return 1 / (1 + math.exp(min(-x, 700)))

    nll = []
    for s in range(len(patch)):
        seen = torch.zeros_like(patch)
        seen[:s] = patch[:s]
        hidden = head.network(context[None], seen[None].float() / 127.5 - 1)[0, s]
        logits, means, scales, of_red, of_green = head.numbers(hidden).double().split(head.sizes)
        means, scales, of_red = (rows.view(-1, MIXTURES) for rows in (means, scales, of_red.tanh()))
        of_green = of_green.tanh()
        before = torch.zeros(len(patch), 3)
        before[:s] = patch[:s] / 127.5 - 1
        shift = (head.linear.weight[3 * s : 3 * s + 3] @ before.flatten()).tolist()
        weights = logits.softmax(0)
        x = [v / 127.5 - 1 for v in patch[s].tolist()]
        p = 0.0
        for k in range(MIXTURES):
            r, g, b = (m + moved for m, moved in zip(means[:, k].tolist(), shift, strict=True))
            g += of_red[0, k].item() * x[0]
            b += of_red[1, k].item() * x[0] + of_green[k].item() * x[1]
            centres = [r, g, b]
            mass = weights[k].item()
            for c in range(3):
                scale = math.exp(max(-7.0, scales[c, k].item()))
                upper = math.inf if patch[s, c] == 255 else (x[c] + 1 / 255 - centres[c]) / scale
                lower = -math.inf if patch[s, c] == 0 else (x[c] - 1 / 255 - centres[c]) / scale
                # in the upper tail the difference of the complements, which do not round to 1
                mass *= cdf(-lower) - cdf(-upper) if lower > 0 else cdf(upper) - cdf(lower)
            p += mass
        nll.append(-math.log(p))
    return nll


@torch.no_grad()
def test_the_likelihood_equals_a_naive_loop():
    head = make_head(4, 3)
    tokens = patches(8, 4, 3)
    tokens[0], tokens[1] = 0, 255
    found = head.nll(contexts(8), tokens)
    expected = [naive_nll(head, context, patch) for context, patch in zip(contexts(8), tokens, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_a_fresh_head_is_nearly_uniform():
    head = LogisticMixtureHead(CONTEXT, (4, 3), WIDTH, 10)
    grey = patches(500, 4, 1).expand(-1, -1, 3)
    bits = head.nll(contexts(1).expand(500, -1), grey) / (3 * math.log(2))
    assert bits.dtype == torch.float32
    assert 6.5 < bits.mean() < 7  # components lie on the grey axis: a grey is likelier than most colours
    one = LogisticMixtureHead(CONTEXT, (4, 1), WIDTH, 10)
    assert (one.nll(contexts(1).expand(256, -1), EVERY[:, None, None].expand(-1, 4, 1)) < math.log(256) + 1).all()


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 3))
def test_autocast_computes_the_mixture_in_full_precision(seed, spread):
    head = make_head(4, 3)
    context = spread * torch.randn(6, CONTEXT, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        exact = head.nll(context, patches(6, 4, 3))
        with torch.autocast("cpu", torch.bfloat16):
            rough = head.nll(context, patches(6, 4, 3))
            assert head.numbers(torch.zeros(WIDTH)).dtype == torch.bfloat16  # what would happen without care
    assert rough.dtype == torch.float32
    assert ((rough - exact).abs() / exact.clamp_min(1)).mean() < 0.05
