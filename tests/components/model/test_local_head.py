import itertools
import math

import pytest
import torch

from components.model.local_head import LocalHead

CONTEXT, COLOURS, WIDTH = 5, 3, 4


def make_head(tokens: int) -> LocalHead:
    head = LocalHead(CONTEXT, tokens, COLOURS, WIDTH)
    generator = torch.Generator().manual_seed(tokens)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.7 * torch.randn(parameter.shape, generator=generator)
    return head


def contexts(n: int) -> torch.Tensor:
    return torch.randn(n, CONTEXT, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_the_probabilities_of_all_patches_sum_to_one(tokens):
    head = make_head(tokens)
    every = torch.tensor(list(itertools.product(range(COLOURS), repeat=tokens)))  # (K^S, S)
    context = contexts(3)[:, None].expand(-1, len(every), -1)  # (3, K^S, D)
    with torch.no_grad():
        probability = torch.exp(-head.nll(context, every.expand(3, -1, -1)).sum(-1).double())  # (3, K^S)
    torch.testing.assert_close(probability.sum(1), torch.ones(3, dtype=torch.double), atol=1e-5, rtol=0)
    assert (probability.amax(1) > 1.5 * probability.amin(1)).all()  # not uniform: the sum is no accident


def test_a_token_sees_the_tokens_before_it_and_no_other():
    head = make_head(4)
    tokens = torch.tensor([[0, 1, 2, 0]])
    with torch.no_grad():
        before = head(contexts(1), tokens)  # (1, S, K)
        for i in range(4):
            changed = tokens.clone()
            changed[0, i] = (changed[0, i] + 1) % COLOURS
            difference = (head(contexts(1), changed) - before).abs().amax((0, 2))  # (S,)
            assert (difference[: i + 1] == 0).all()
            assert (difference[i + 1 :] > 1e-4).all()


def test_every_token_sees_the_context():
    head = make_head(4)
    tokens = torch.zeros(1, 4, dtype=torch.long)
    one, other = contexts(2)[:, None]
    with torch.no_grad():
        assert ((head(one, tokens) - head(other, tokens)).abs().amax((0, 2)) > 1e-4).all()


def test_a_fresh_head_is_uniform():
    nll = LocalHead(CONTEXT, 4, COLOURS, WIDTH).nll(contexts(2), torch.zeros(2, 4, dtype=torch.long))
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, torch.full((2, 4), math.log(COLOURS)))
