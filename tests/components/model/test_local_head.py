import itertools
import math

import pytest
import torch

from components.model.local_head import CategoricalHead

CONTEXT, VALUES, WIDTH = 5, 3, 4


def make_head(*shape: int, values: int = VALUES) -> CategoricalHead:
    head = CategoricalHead(CONTEXT, shape, values, WIDTH)
    generator = torch.Generator().manual_seed(math.prod(shape))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.7 * torch.randn(parameter.shape, generator=generator)
    return head


def contexts(n: int) -> torch.Tensor:
    return torch.randn(n, CONTEXT, generator=torch.Generator().manual_seed(0))


SHAPES = pytest.mark.parametrize("shape", [(1,), (2,), (4,), (1, 3), (2, 3)], ids=str)


@SHAPES
def test_the_probabilities_of_all_patches_sum_to_one(shape):
    head = make_head(*shape)
    every = torch.tensor(list(itertools.product(range(VALUES), repeat=math.prod(shape))))  # (V^(S·C), S·C)
    every = every.unflatten(1, shape)
    context = contexts(3)[:, None].expand(-1, len(every), -1)  # (3, V^(S·C), D)
    with torch.no_grad():
        nll = head.nll(context, every.expand(3, *every.shape))
    assert nll.shape == (3, len(every), shape[0])  # a pixel's, whatever its channels
    probability = torch.exp(-nll.sum(-1).double())  # (3, V^(S·C))
    torch.testing.assert_close(probability.sum(1), torch.ones(3, dtype=torch.double), atol=1e-5, rtol=0)
    assert (probability.amax(1) > 1.5 * probability.amin(1)).all()  # not uniform: the sum is no accident


@torch.no_grad()
def test_the_probabilities_of_all_grey_patches_of_two_8_bit_pixels_sum_to_one():
    head = make_head(2, 1, values=256)
    every = torch.cartesian_prod(torch.arange(256), torch.arange(256))[..., None]
    log_p = -head.nll(contexts(1).expand(len(every), -1), every).double().sum(1)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)


@SHAPES
def test_a_token_sees_the_tokens_before_it_and_no_other(shape):
    head = make_head(*shape)
    tokens = torch.tensor([[0, 1, 2, 0, 1, 2][: math.prod(shape)]]).unflatten(1, shape)
    with torch.no_grad():
        before = head(contexts(1), tokens).flatten(1, -2)  # (1, S·C, V)
        for i in range(math.prod(shape)):
            changed = tokens.clone()
            changed.view(-1)[i] = (changed.view(-1)[i] + 1) % VALUES
            difference = (head(contexts(1), changed).flatten(1, -2) - before).abs().amax((0, 2))  # (S·C,)
            assert (difference[: i + 1] == 0).all()
            assert (difference[i + 1 :] > 1e-4).all()


@torch.no_grad()
@SHAPES
def test_the_likelihood_is_the_product_of_each_tokens_distribution_given_those_before_it(shape):
    head = make_head(*shape)
    tokens = torch.randint(VALUES, (6, *shape), generator=torch.Generator().manual_seed(1))
    found = torch.zeros(6, shape[0])
    for i, index in enumerate(itertools.product(*map(range, shape))):
        hidden = tokens.clone()
        hidden.view(6, -1)[:, i:] = 0
        distribution = head.log_probabilities(contexts(6), hidden, index)  # (6, V)
        torch.testing.assert_close(distribution.exp().sum(1), torch.ones(6))
        found[:, index[0]] -= distribution.gather(1, tokens[(slice(None), *index)][:, None])[:, 0]
    torch.testing.assert_close(head.nll(contexts(6), tokens), found, atol=1e-5, rtol=1e-5)


def test_every_token_sees_the_context():
    head = make_head(4)
    tokens = torch.zeros(1, 4, dtype=torch.long)
    one, other = contexts(2)[:, None]
    with torch.no_grad():
        assert ((head(one, tokens) - head(other, tokens)).abs().amax((0, 2)) > 1e-4).all()


@pytest.mark.parametrize(("shape", "nats"), [((4,), math.log(VALUES)), ((4, 3), 3 * math.log(VALUES))])
def test_a_fresh_head_is_uniform(shape, nats):
    nll = CategoricalHead(CONTEXT, shape, VALUES, WIDTH).nll(contexts(2), torch.zeros(2, *shape, dtype=torch.long))
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, torch.full((2, 4), nats))


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_bfloat16_stays_near_float32(shape):
    head, tokens = make_head(*shape), torch.zeros(2, *shape, dtype=torch.long)
    exact = head.nll(contexts(2), tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rough = head.nll(contexts(2), tokens)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.05)
