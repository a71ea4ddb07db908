"""What holds of every head (test_local_head.py) holds of nested blocks: exact, causal, normalised, each block alike."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.model.local_head import CategoricalHead, LocalHead
from components.model.logistic_mixture import LogisticMixtureHead
from components.model.nested_head import NestedHead
from components.model.tokens import nested_order, nested_sides
from components.objectives.config import VariantConfig
from tests.components.flops import flops_per_view

CONTEXT, WIDTH = 5, 4


def make_head(sides: tuple[int, ...], channels: int, values: int | None) -> NestedHead:
    """With `values` a softmax over so many, else a mixture; channels 0: a token is a whole pixel."""

    def pixel_head(context_width: int, pixels: int) -> LocalHead:
        shape = (pixels, channels) if channels else (pixels,)
        if values is None:
            return LogisticMixtureHead(context_width, (pixels, channels), WIDTH, 3)
        return CategoricalHead(context_width, shape, values, WIDTH)

    reads = channels if values is None else WIDTH * max(channels, 1)
    head = NestedHead(CONTEXT, sides, 6, reads, pixel_head)
    generator = torch.Generator().manual_seed(math.prod(sides))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.7 * torch.randn(parameter.shape, generator=generator)
    return head


def contexts(n: int) -> Tensor:
    return torch.randn(n, CONTEXT, generator=torch.Generator().manual_seed(0))


def random_tokens(head: NestedHead, n: int, values: int, seed: int = 1) -> Tensor:
    return torch.randint(values, (n, *head.shape), generator=torch.Generator().manual_seed(seed))


HEADS = pytest.mark.parametrize(
    ("sides", "channels", "values"),
    [((4, 2), 0, 5), ((6, 3), 3, 4), ((8, 4, 2), 0, 3), ((4, 2), 3, None), ((8, 4, 2), 1, None)],
    ids=str,
)


@torch.no_grad()
def test_the_probabilities_of_all_patches_sum_to_one():
    """A patch of 2×2 pixels, taken as four blocks of one pixel each."""
    head = make_head((2, 1), 0, 3)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))  # (81, 4)
    probability = (-head.nll(contexts(3)[:, None].expand(-1, 81, -1), every.expand(3, 81, 4)).sum(-1)).double().exp()
    torch.testing.assert_close(probability.sum(1), torch.ones(3, dtype=torch.double), atol=1e-5, rtol=0)
    assert (probability.amax(1) > 1.5 * probability.amin(1)).all()


@torch.no_grad()
@HEADS
def test_the_likelihood_is_the_product_of_each_tokens_distribution_given_those_before_it(sides, channels, values):
    head = make_head(sides, channels, values)
    tokens = random_tokens(head, 4, values or 256)
    found = torch.zeros(4, sides[0] ** 2)
    for i, index in enumerate(itertools.product(*map(range, head.shape))):
        hidden = tokens.clone()
        hidden.flatten(1)[:, i:] = 1
        distribution = head.log_probabilities(contexts(4), hidden, index)  # (4, V)
        torch.testing.assert_close(distribution.exp().sum(1), torch.ones(4), atol=1e-4, rtol=0)
        found[:, index[0]] -= distribution.gather(1, tokens[(slice(None), *index)][:, None])[:, 0]
    torch.testing.assert_close(head.nll(contexts(4), tokens), found, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@HEADS
def test_a_pixel_sees_all_pixels_before_it_and_the_context(sides, channels, values):
    head = make_head(sides, channels, values)
    tokens, last = random_tokens(head, 1, values or 256), head.shape[0] - 1
    place = (last, *(0 for _ in head.shape[1:]))
    before = head.log_probabilities(contexts(1), tokens, place)
    assert not torch.equal(before, head.log_probabilities(contexts(2)[1:], tokens, place))
    for i in range(last):
        changed = tokens.clone()
        changed[0, i] = (changed[0, i] + 1) % values if values else 255 - changed[0, i]
        assert not torch.equal(before, head.log_probabilities(contexts(1), changed, place)), i


@torch.no_grad()
def test_patches_of_any_batch_shape_are_alike():
    head = make_head((4, 2), 3, None)
    tokens, context = random_tokens(head, 6, 256), contexts(6)
    whole = head.nll(context, tokens)
    assert whole.shape == (6, 16)
    torch.testing.assert_close(head.nll(context.view(2, 3, -1), tokens.view(2, 3, 16, 3)).view(6, 16), whole)


@pytest.mark.parametrize(
    ("side", "sides"),
    [(1, (1,)), (4, (4,)), (5, (5,)), (6, (6, 3)), (8, (8, 4)), (9, (9, 3)), (14, (14, 7)), (32, (32, 16, 8, 4))],
)
def test_sides_are_divided_until_they_are_small(side, sides):
    assert nested_sides(side) == sides


def test_blocks_and_their_pixels_come_in_raster_order():
    assert nested_order((4,)).tolist() == list(range(16))
    order = nested_order((8, 4))
    assert order[:16].tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]
    assert order[16].item() == 4
    assert order[32].item() == 32


@pytest.mark.parametrize("side", [6, 8, 9, 16])
def test_the_pixels_left_of_a_pixel_and_above_it_come_before_it(side):
    when = torch.empty(side**2, dtype=torch.long)
    when[nested_order(nested_sides(side))] = torch.arange(side**2)
    when = when.view(side, side)
    assert (when[:, 1:] > when[:, :-1]).all()
    assert (when[1:] > when[:-1]).all()


@pytest.mark.parametrize("sides", [(4, 2), (8, 4), (12, 6, 3)])
def test_the_border_of_a_block_is_what_lies_left_of_it_and_above_it(sides):
    side, inner, order = sides[0], sides[-1], nested_order(sides)
    for block, border in enumerate(make_head(sides, 0, 3).border):
        row, column = divmod(int(order[block * inner**2]), side)
        expected = {
            (r, c)
            for r in range(row - 1, row + inner)
            for c in range(column - 1, column + inner)
            if (r < row or c < column) and r >= 0 and c >= 0
        }
        found = {divmod(int(order[i]), side) for i in border if i < side**2}
        assert found == expected


def test_a_patch_of_224_pixel_photographs_costs_little_beside_the_transformer():
    config = ModelConfig(16, size="small", likelihood="logistic_mixture")
    palette = np.zeros((2, 3), np.uint8)
    architecture = Architecture.of(config, VariantConfig(1, 1), 224, palette)
    model = build(architecture, palette, 0)
    assert model.head is not None
    of_head, of_all = (sum(p.numel() for p in module.parameters()) for module in (model.head, model))
    assert of_head < 0.05 * of_all
    all_patches, no_patch = (sum(flops_per_view(architecture, scored).training) for scored in (None, 0))
    assert all_patches - no_patch < 0.2 * all_patches


@torch.no_grad()
@pytest.mark.parametrize("likelihood", ["palette", "categorical", "logistic_mixture"])
def test_images_come_back_from_the_patches_of_nested_blocks(make_model, likelihood):
    model = make_model(8, image_size=16, colours=7, channels=3, likelihood=likelihood)
    values = torch.randint(7, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    images = model.tokenizer.dequantise(values if likelihood == "palette" else values[..., None].expand(-1, -1, -1, 3))
    images = images.permute(0, 3, 1, 2)
    tokens = model.tokenizer(images)
    torch.testing.assert_close(model.tokenizer.colours(tokens), images)
    torch.testing.assert_close(model.tokenizer.patches(model.tokenizer.quantise(images)), tokens)
