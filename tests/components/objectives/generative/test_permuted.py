import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from components.model.build import Architecture, load_weights, save_weights
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.generative.permuted import PermutedConfig
from components.objectives.generative.permuted.term import Permuted

DATA = TrainingSet(np.zeros((4, 2, 2, 1), np.uint8))
LIKELIHOODS = pytest.mark.parametrize("likelihood", ["palette", "logistic_mixture", "categorical"])


@pytest.fixture
def model(make_model):
    def of(patch_size: int = 1, image_size: int = 2, colours: int = 3, orders: int = 1, **shape) -> GCRL:
        return make_model(patch_size, image_size, colours, generative=PermutedConfig(orders=orders), **shape)

    return of


def every_image(model: GCRL, colours: int) -> Tensor:
    """Tokens (K^(H·W), T, S) of every image there is."""
    size = model.image_size
    images = torch.tensor(list(itertools.product(range(colours), repeat=size**2))).view(-1, size, size)
    return model.tokenizer.patches(images)


def tokens_of(model: GCRL, n: int = 5, seed: int = 0) -> Tensor:
    shape = (n, model.patches, *model.head.shape)
    values = 256 if len(shape) > 3 else 3
    return torch.randint(values, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def naive(model: GCRL, tokens: Tensor, order: list[int]) -> Tensor:
    """The NLL (n, T, S), patch by patch: each from a sequence that holds the patches before it and nothing else."""
    found = torch.empty(*tokens.shape[:3])
    start = (model.start + model.position[0]).expand(len(tokens), 1, -1)
    for k, patch in enumerate(order):
        before = [model.embed(tokens[:, p : p + 1], first=p)[:, 1:] for p in order[:k]]
        encoded = model.encoder(torch.cat([start, *before], 1))  # (n, k + 1, D)
        told = encoded + torch.stack([model.next_position[p] for p in order[: k + 1]])
        context = model.decoder_norm(model.decoder(told))[:, -1]
        found[:, patch] = model.head.nll(context, tokens[:, patch])
    return found


@LIKELIHOODS
def test_the_nll_in_an_order_is_that_of_predicting_patch_after_patch(model, likelihood):
    made = model(2, 4, likelihood=likelihood)
    tokens = tokens_of(made)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        with torch.no_grad():
            found = made.nll_in_order(tokens, torch.tensor(order))
            assert torch.equal(made.nll_in_order(tokens, torch.tensor(order).expand(5, -1)), found)
        torch.testing.assert_close(found, naive(made, tokens, order), atol=1e-4, rtol=1e-4)


def test_each_view_has_its_own_order(model):
    made = model(2, 4)
    tokens, orders = tokens_of(made, 3), [[3, 1, 0, 2], [0, 1, 2, 3], [2, 3, 1, 0]]
    with torch.no_grad():
        found = made.nll_in_order(tokens, torch.tensor(orders))
    expected = torch.cat([naive(made, tokens[i : i + 1], order) for i, order in enumerate(orders)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_probabilities_of_all_images_sum_to_one_in_every_order(model):
    made = model()
    tokens = every_image(made, 3)
    log_p = [
        -made.nll_in_order(tokens, torch.tensor(order)).double().sum((1, 2))
        for order in itertools.permutations(range(4))
    ]
    sums = torch.stack(log_p).exp().sum(1)
    torch.testing.assert_close(sums, torch.ones(24, dtype=torch.double), atol=1e-5, rtol=0)
    assert torch.stack(log_p).std(0).max() > 0.1  # they are other models


@torch.no_grad()
def test_a_patch_depends_on_those_before_it_in_the_order_alone(model):
    made = model(2, 4)
    tokens, order = tokens_of(made, 8), [2, 0, 3, 1]
    given = torch.tensor(order)
    before = made.nll_in_order(tokens, given)
    for k, patch in enumerate(order):
        changed = tokens.clone()
        changed[:, patch] = (changed[:, patch] + 1) % 3
        difference = (made.nll_in_order(changed, given) - before).abs().amax((0, 2))  # (T,)
        assert (difference[order[:k]] < 1e-6).all()
        assert (difference[order[k + 1 :]] > 1e-4).all()


@torch.no_grad()
def test_the_raster_order_is_what_the_model_gives_of_itself(model):
    made = model(2, 4)
    tokens = tokens_of(made)
    condition = torch.randn(5, made.condition.in_features, generator=torch.Generator().manual_seed(1))
    for told in (None, condition):
        found = made.nll_in_order(tokens, torch.arange(4), told)
        torch.testing.assert_close(found, made(tokens, told).nll)
    assert not torch.allclose(made(tokens, condition).nll, made(tokens).nll)


@torch.no_grad()
def test_an_ensemble_is_the_mean_of_its_orders_likelihoods_and_sums_to_one(model):
    made = model(orders=3)
    assert made.other_orders.sort(1).values.tolist() == [[0, 1, 2, 3]] * 2
    tokens = every_image(made, 3)
    found = made(tokens).nll  # (n, 1, 1)
    orders = [torch.arange(4), *made.other_orders]
    likelihoods = [torch.exp(-naive(made, tokens, o.tolist()).double().sum((1, 2))) for o in orders]
    expected = -torch.stack(likelihoods).mean(0).log() / 4
    torch.testing.assert_close(found[:, 0, 0].double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.exp(-4 * found.double()).sum().item() == pytest.approx(1, abs=1e-5)


def test_orders_are_saved_with_the_model(tmp_path, make_palette, model):
    made = model(2, 8, orders=4)
    shape = ModelConfig(2, 16, 2, 2, 2, 8, 16, 8)
    variant = VariantConfig(1, 1, generative=PermutedConfig(orders=4))
    architecture = Architecture.of(shape, variant, 8, make_palette(3, 1))
    save_weights(tmp_path / "model.safetensors", made, architecture)
    loaded, _ = load_weights(tmp_path / "model.safetensors", architecture)
    tokens = tokens_of(made)
    with torch.no_grad():
        assert torch.equal(loaded(tokens).nll, made(tokens).nll)


def test_all_orders_are_drawn_equally_often(model):
    from scipy.stats import chisquare

    drawn = Permuted(PermutedConfig(), model(), DATA).draw(2, 2000, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 2000, 4)
    counts = np.unique(drawn.flatten(0, 1).numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(4)
    assert chisquare(counts).pvalue > 0.001


def test_the_loss_reaches_all_but_what_only_features_need(model):
    made = model(2, 4).train()
    term = Permuted(PermutedConfig(), made, DATA)
    tokens, condition = tokens_of(made), torch.ones(5, made.condition.in_features)
    drawn = term.draw(1, 5, torch.Generator().manual_seed(0))[0]
    features, values = term.represent(made, tokens, condition, drawn, 5)
    assert torch.equal(features, made(tokens).features)
    loss, metrics = term(values)
    torch.testing.assert_close(loss, made.nll_in_order(tokens, drawn, condition).mean())
    assert set(metrics) == {"nll_nats_per_token"}
    loss.backward()
    untouched = {name.split(".")[0] for name, p in made.named_parameters() if p.grad is None or not p.grad.any()}
    assert untouched == {"norm", "projection"}
