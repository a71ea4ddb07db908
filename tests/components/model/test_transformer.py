import math

import pytest
import torch
from torch import Tensor, nn

from components.model.transformer import Attention, Cache, Stack

WIDTH, HEADS = 12, 3


def randomise(module: nn.Module) -> None:
    """Fresh residual branches are zero: nothing could be seen through them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture
def stack() -> Stack:
    made = Stack(WIDTH, HEADS, layers=2)
    randomise(made)
    return made


@pytest.fixture(params=["explicit", "fused"])
def form(request, monkeypatch) -> str:
    """Both ways in which attention is computed."""
    monkeypatch.setattr(Attention, "LONGEST_EXPLICIT", 128 if request.param == "explicit" else 0)
    return request.param


def inputs(positions: int = 6, n: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(n, positions, WIDTH, generator=torch.Generator().manual_seed(seed))


def naive_attention(attention: Attention, x: Tensor) -> Tensor:
    """One position, one head, one key at a time."""
    size = WIDTH // HEADS
    q, k, v = (x @ attention.query_key_value.weight.T).split(WIDTH, -1)

    def unit(u: Tensor) -> Tensor:
        return u / u.square().mean().sqrt()

    mixed = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            for t in range(x.shape[1]):
                query = unit(q[b, t, part]) * attention.gain[h]
                seen = t + 1 if attention.causal else x.shape[1]
                scores = torch.stack([query @ unit(k[b, s, part]) / math.sqrt(size) for s in range(seen)])
                mixed[b, t, part] = scores.softmax(0) @ v[b, :seen, part]
    return mixed @ attention.out.weight.T


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_a_naive_loop(form, causal):
    attention = Attention(WIDTH, HEADS, causal)
    randomise(attention)
    x = inputs()
    torch.testing.assert_close(attention(x), naive_attention(attention, x), atol=1e-5, rtol=1e-5)


def test_a_position_sees_itself_and_what_comes_before(form, stack):
    x = inputs()
    before = stack(x)
    for t in range(x.shape[1]):
        changed = x.clone()
        changed[:, t] += torch.randn(WIDTH)
        difference = (stack(changed) - before).abs().amax((0, 2))  # (T,)
        assert (difference[:t] == 0).all()
        assert (difference[t:] > 1e-4).all()


def test_a_position_of_a_stack_that_is_not_causal_sees_all(form):
    stack = Stack(WIDTH, HEADS, layers=2, causal=False)
    randomise(stack)
    x = inputs()
    changed = x.clone()
    changed[:, 3] += torch.randn(WIDTH)
    assert ((stack(changed) - stack(x)).abs().amax((0, 2)) > 1e-4).all()


@pytest.mark.parametrize("chunks", [[1] * 6, [3, 1, 2], [5, 1]])
def test_kept_keys_and_values_give_what_one_pass_gives(form, stack, chunks):
    x = inputs()
    cache = Cache(6)
    parts = [stack(part, cache) for part in x.split(chunks, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), stack(x), atol=1e-4, rtol=1e-4)


def test_bfloat16_stays_near_float32(form, stack):
    x = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        rough = stack(x.bfloat16())
    assert rough.dtype == torch.bfloat16  # the residual stream is not widened
    exact = stack(x)
    assert (rough.float() - exact).norm() / exact.norm() < 0.05


def test_a_fresh_stack_passes_its_input_through():
    x = inputs()
    assert torch.equal(Stack(WIDTH, HEADS, layers=3)(x), x)
