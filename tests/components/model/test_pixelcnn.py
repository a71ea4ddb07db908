import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.build import Architecture, build, load_weights, save_weights
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.model.pixelcnn import Convolution, GatedResidual, PixelCNN, concat_elu
from components.model.transformer import Cache
from components.objectives.config import VariantConfig
from components.objectives.generative.pixelcnn import PixelCNNConfig

WIDTH, FILTERS = 6, 4
KERNELS = pytest.mark.parametrize(("left", "right"), [(1, 1), (1, 0)], ids=["vertical", "horizontal"])


def randomise(module: nn.Module) -> None:
    """Fresh blocks pass their input through: nothing could be seen of them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=generator)


def stack_of(side: int, layers: int = 2) -> PixelCNN:
    made = PixelCNN(WIDTH, FILTERS, layers, side)
    randomise(made)
    return made


def inputs(positions: int, n: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(n, positions, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model(make_model):
    def of(patch_size: int = 1, image_size: int = 2, colours: int = 3, **shape) -> GCRL:
        return make_model(patch_size, image_size, colours, generative=PixelCNNConfig(), **shape)

    return of


def tokens_of(model: GCRL, n: int = 5, seed: int = 0) -> Tensor:
    assert model.head is not None
    shape = (n, model.patches, *model.head.shape)
    values = 256 if len(shape) > 3 else 3
    return torch.randint(values, shape, generator=torch.Generator().manual_seed(seed))


Cells = dict[tuple[int, int], Tensor]  # (row, column) → (B, C)


def naive_convolution(layer: Convolution, cells: Cells, left: int, right: int) -> Cells:
    """One product a neighbour; where there is none, none."""
    columns = left + 1 + right
    kernel = layer.weight.view(layer.out_features, -1, 2, columns)
    found = {}
    for row, column in cells:
        found[row, column] = layer.bias
        for i, j in itertools.product(range(2), range(columns)):
            if (neighbour := (row - 1 + i, column - left + j)) in cells:
                found[row, column] = found[row, column] + cells[neighbour] @ kernel[:, :, i, j].T
    return found


def each(function, *streams: Cells) -> Cells:
    return {place: function(*(stream[place] for stream in streams)) for place in streams[0]}


def doubled(x: Tensor) -> Tensor:
    return torch.cat([F.elu(x), F.elu(-x)], -1)


def naive_residual(block: GatedResidual, cells: Cells, left: int, right: int, beside: Cells | None = None) -> Cells:
    hidden = naive_convolution(block.first, each(lambda x: doubled(block.norm(x)), cells), left, right)
    if beside is not None:
        hidden = each(lambda h, b: h + doubled(b) @ block.beside.weight.T, hidden, beside)
    second = naive_convolution(block.second, each(doubled, hidden), left, right)
    size = block.norm.normalized_shape[0]
    return each(lambda x, s: x + s[..., :size] * torch.sigmoid(s[..., size:]), cells, second)


def naive_stack(stack: PixelCNN, x: Tensor) -> Tensor:
    """Cell by cell, from the paper's picture: patches above, patches before."""
    n, positions, _ = x.shape
    filters = stack.leave.in_features
    cells = {(t // stack.side, t % stack.side): t for t in range(positions)}
    rows = -(-positions // stack.side)
    entered = stack.enter(x)
    nothing = torch.zeros(n, filters)
    vertical, horizontal = {}, {}
    for place in itertools.product(range(rows), range(stack.side)):
        row, column = place
        # position t has seen the patches < t: the one that has just seen that above is the next one's
        above = (row - 1) * stack.side + column + 1
        vertical[place] = entered[:, above, :filters] if above >= 0 else nothing
        horizontal[place] = entered[:, cells[place], filters:] if place in cells else nothing
    for block in stack.blocks:
        vertical = naive_residual(block.vertical, vertical, 1, 1)
        horizontal = naive_residual(block.horizontal, horizontal, 1, 0, vertical)
    return torch.stack([x[:, t] + stack.leave(F.elu(horizontal[place])) for place, t in cells.items()], 1)


@KERNELS
def test_a_convolution_equals_a_naive_loop(left, right):
    layer = Convolution(3, 5, left, right)
    grid = torch.randn(2, 3, 4, 3, generator=torch.Generator().manual_seed(0))
    places = list(itertools.product(range(3), range(4)))
    found = naive_convolution(layer, {(row, column): grid[:, row, column] for row, column in places}, left, right)
    expected = torch.stack([found[place] for place in places], 1).unflatten(1, (3, 4))
    torch.testing.assert_close(layer(grid), expected, atol=1e-5, rtol=1e-5)


def test_concat_elu_keeps_both_signs():
    x = torch.tensor([[2.0, -1.0]])
    expected = torch.tensor([[2.0, math.exp(-1) - 1, math.exp(-2) - 1, 1.0]])
    torch.testing.assert_close(concat_elu(x), expected)


@pytest.mark.parametrize(("side", "positions"), [(1, 1), (1, 2), (2, 5), (3, 9), (3, 10), (4, 17), (4, 6), (5, 3)])
def test_a_stack_equals_a_naive_loop(side, positions):
    stack, x = stack_of(side), inputs(positions)
    with torch.no_grad():
        torch.testing.assert_close(stack(x), naive_stack(stack, x), atol=1e-4, rtol=1e-4)


@given(side=st.integers(1, 6), layers=st.integers(1, 3), data=st.data())
@torch.no_grad()
def test_a_position_depends_on_itself_and_what_comes_before_alone(side, layers, data):
    positions = data.draw(st.integers(1, side**2 + 1), label="positions")
    t = data.draw(st.integers(0, positions - 1), label="changed")
    stack, x = stack_of(side, layers), inputs(positions)
    changed = x.clone()
    changed[:, t] += 1
    difference = (stack(changed) - stack(x)).abs().amax((0, 2))  # (T,)
    assert (difference[:t] == 0).all()
    assert difference[t] > 1e-4


@pytest.mark.parametrize("layers", [1, 2])
def test_how_far_a_cell_sees(layers):
    """Every patch before it that lies within two rows and columns a block; nothing after it, nothing much farther."""
    side, (row, column) = 13, (8, 6)
    stack, x = stack_of(side, layers), inputs(side**2 + 1, n=1).requires_grad_()
    stack(x)[0, row * side + column].abs().sum().backward()
    seen = (x.grad[0, 1:] != 0).any(-1).view(side, side)  # patch t enters at position t + 1
    before = torch.arange(side**2).view(side, side) < row * side + column
    rows, columns = (torch.arange(side) - place for place in (row, column))
    reach = 2 * layers
    near = (rows[:, None].abs() <= reach) & (columns.abs() <= reach)
    assert not (seen & ~before).any()
    assert seen[near & before].all()
    assert not seen[: row - reach - 2].any()
    assert not seen[:row, column + reach + 1 :].any()
    assert not seen[:, : column - reach - 1].any()


@pytest.mark.parametrize("chunks", [[1] * 10, [3, 1, 6], [9, 1]])
@torch.no_grad()
def test_position_after_position_gives_what_one_pass_gives(chunks):
    stack, x, cache = stack_of(3), inputs(10), Cache(10)
    parts = [stack(part, cache) for part in x.split(chunks, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), stack(x), atol=1e-5, rtol=1e-5)


def test_bfloat16_stays_near_float32():
    stack, x = stack_of(4), inputs(17)
    with torch.autocast("cpu", torch.bfloat16):
        rough = stack(x.bfloat16())
    assert rough.dtype == torch.bfloat16  # the residual stream is not widened
    exact = stack(x)
    assert (rough.float() - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize(("patch_size", "image_size"), [(1, 2), (1, 3), (2, 4), (1, 5), (2, 10)])
@torch.no_grad()
def test_a_context_knows_all_earlier_patches_and_no_other(model, patch_size, image_size):
    """No blind spot where the encoder's blocks reach from one side of the grid to the other."""
    made = model(patch_size, image_size)
    tokens = tokens_of(made)

    def contexts(tokens: Tensor) -> Tensor:
        return made.contexts(made.encode(tokens)[:, :-1])

    before = contexts(tokens)
    for patch in range(made.patches):
        changed = tokens.clone()
        changed[:, patch] = (changed[:, patch] + 1) % 3
        difference = (contexts(changed) - before).abs().amax((0, 2))  # (T,)
        assert (difference[: patch + 1] == 0).all()
        assert (difference[patch + 1 :] > 0).all()


@pytest.mark.parametrize(("patch_size", "image_size", "colours"), [(1, 2, 3), (2, 2, 3), (1, 3, 2), (2, 4, 2)])
@torch.no_grad()
def test_the_probabilities_of_all_images_sum_to_one(model, patch_size, image_size, colours):
    shape = {"encoder_layers": 1, "decoder_layers": 1} if image_size == 4 else {}
    made = model(patch_size, image_size, colours, **shape)
    images = torch.tensor(list(itertools.product(range(colours), repeat=image_size**2)))
    tokens = made.tokenizer.patches(images.view(-1, image_size, image_size))
    log_p = -made(tokens).nll.double().sum((1, 2))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_p.max() > log_p.min() + 1  # far from uniform: the sum is no accident


@pytest.mark.parametrize("likelihood", ["palette", "logistic_mixture", "categorical"])
@torch.no_grad()
def test_the_nll_is_that_of_predicting_patch_after_patch(model, likelihood):
    made = model(2, 6, likelihood=likelihood)
    tokens = tokens_of(made)
    expected = []
    for t in range(made.patches):  # from a sequence that holds the patches before it and nothing else
        encoded = made.encoder(made.embed(tokens[:, :t]))
        expected.append(made.head.nll(made.contexts(encoded)[:, -1], tokens[:, t]))
    torch.testing.assert_close(made(tokens).nll, torch.stack(expected, 1), atol=1e-4, rtol=1e-4)


def test_both_losses_reach_every_parameter(model):
    made = model(2, 6).train()
    outputs = made(tokens_of(made, 8), torch.ones(8, made.condition.in_features))
    (outputs.nll.mean() + outputs.projections.square()[:, 0].mean()).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_a_loaded_model_gives_identical_outputs(tmp_path, make_palette, model):
    made = model(2, 4)
    shape, variant = ModelConfig(2, 16, 2, 2, 2, 8, 16, 8), VariantConfig(1, 1, generative=PixelCNNConfig())
    architecture = Architecture.of(shape, variant, 4, make_palette(3, 1))
    assert architecture.filters == 8
    save_weights(tmp_path / "model.safetensors", made, architecture)
    loaded, found = load_weights(tmp_path / "model.safetensors", architecture)
    assert found == architecture
    tokens = tokens_of(made)
    for name in ("features", "projections", "nll"):
        assert torch.equal(getattr(loaded(tokens), name), getattr(made(tokens), name))


def test_a_block_costs_about_what_a_transformers_costs(make_palette):
    """By default: as many blocks of half the width, so that variants may be compared."""

    def parameters(variant: VariantConfig) -> int:
        palette = make_palette(3, 1)
        model = build(Architecture.of(ModelConfig(2), variant, 8, palette), palette, 0)
        return sum(p.numel() for p in model.parameters())

    convolutional = VariantConfig(1, 0, generative=PixelCNNConfig())
    assert parameters(convolutional) == pytest.approx(parameters(VariantConfig(1, 0)), rel=0.4)
    wider = VariantConfig(1, 0, generative=PixelCNNConfig(filters=100))
    assert parameters(wider) > 1.5 * parameters(convolutional)


def test_filters_that_are_none():
    with pytest.raises(ValueError, match="filters must be positive"):
        PixelCNNConfig(filters=0)
