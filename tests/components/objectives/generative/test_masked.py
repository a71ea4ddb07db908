import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from components.errors import ConfigError
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.generative.masked import MaskedConfig
from components.objectives.generative.masked.term import Masked
from components.objectives.objective import build_objective

DATA = TrainingSet(np.zeros((4, 6, 6, 1), np.uint8))
LIKELIHOODS = pytest.mark.parametrize("likelihood", ["palette", "logistic_mixture", "categorical"])


@pytest.fixture(scope="module")
def make(make_model):
    """A model of nine patches and its term, every parameter moved at random."""

    def of(mask_ratio: float = 0.5, **shape) -> tuple:
        model = make_model(2, 6, 5, generative=MaskedConfig(mask_ratio=mask_ratio), **shape)
        term = Masked(MaskedConfig(mask_ratio=mask_ratio), model, DATA).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in term.parameters():
                parameter += 0.4 * torch.randn(parameter.shape, generator=generator)
        return model, term

    return of


def tokens_of(model, n: int = 3) -> Tensor:
    shape = (n, 9, *Masked(MaskedConfig(), model, DATA).head.shape)
    return torch.randint(5, shape, generator=torch.Generator().manual_seed(0))


@LIKELIHOODS
@torch.no_grad()
def test_the_loss_is_that_of_a_naive_loop_over_masked_patches(make, likelihood):
    model, term = make(likelihood=likelihood)
    tokens, masked = tokens_of(model), torch.tensor([[0, 4], [8, 1], [3, 2]])
    found = term.values(model, tokens, torch.empty(0), masked)
    assert found.shape == (3, 2, 4)
    total = 0.0
    for image, hidden in zip(tokens, masked.tolist(), strict=True):
        sequence = [model.start + model.position[0]]
        for t in range(9):
            patch = model.embed(image[None, [t]], first=t)[0, 1]
            sequence.append(term.embedding + model.position[t + 1] if t in hidden else patch)
        x = torch.stack(sequence)[None]
        for layer in (*model.encoder.blocks, model.norm, *term.decoder.blocks):
            x = layer(x)
        contexts = term.decoder_norm(x)[0]
        for t in hidden:
            total += term.head.nll(contexts[t + 1], image[t]).sum().item()
    loss, metrics = term(found)
    assert loss.item() == pytest.approx(total / (3 * 2 * 4), rel=1e-4)
    assert metrics == {}


@given(st.integers(0, 8), st.integers(0, 999))
@torch.no_grad()
def test_no_patch_is_predicted_from_a_masked_one_and_each_from_all_others(make, changed, seed):
    model, term = make()
    tokens = tokens_of(model, 1)
    masked = term.draw(1, 1, torch.Generator().manual_seed(seed))[0]
    other = tokens.clone()
    other[0, changed] = (other[0, changed] + 1) % 5
    difference = (term.contexts(model, other, masked) - term.contexts(model, tokens, masked)).abs().amax((0, 2))
    assert torch.equal(difference > 1e-4, torch.full((9,), changed not in masked[0].tolist()))


def test_visible_patches_carry_no_loss(make):
    """Their own tokens matter as context alone: the head is asked for none of them."""
    model, term = make()
    tokens, masked = tokens_of(model), torch.tensor([[0, 4], [8, 1], [3, 2]])
    contexts = term.contexts(model, tokens, masked).detach().requires_grad_()
    image = torch.arange(3)[:, None]
    found = term.values(model, tokens, torch.empty(0), masked)
    torch.testing.assert_close(term.head.nll(contexts[image, masked], tokens[image, masked]), found)
    term(term.head.nll(contexts[image, masked], tokens[image, masked]))[0].backward()
    reached = contexts.grad.abs().sum(2) > 0
    assert torch.equal(reached, torch.zeros(3, 9, dtype=torch.bool).scatter(1, masked, value=True))


def test_every_patch_is_masked_equally_often(make):
    from scipy.stats import chisquare

    _, term = make(mask_ratio=0.6)
    drawn = term.draw(2, 500, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 500, 5)
    assert all(len(set(row)) == 5 for row in drawn.flatten(0, 1).tolist())
    assert chisquare(np.bincount(drawn.flatten(), minlength=9)).pvalue > 0.001


def test_the_features_are_those_of_the_image_without_a_mask(make):
    model, term = make()
    tokens = tokens_of(model)
    drawn = term.draw(1, 2, torch.Generator().manual_seed(0))[0]
    with torch.no_grad():
        features, values = term.represent(model, tokens, torch.empty(0), drawn, 2)
        assert torch.equal(features, model(tokens).features)
        assert torch.equal(values, term.values(model, tokens[:2], torch.empty(0), drawn))
    assert model.head is None


def test_the_loss_reaches_the_encoder_and_all_that_the_term_owns(make):
    model, term = make()
    tokens = tokens_of(model)
    model.zero_grad()
    drawn = term.draw(1, 3, torch.Generator().manual_seed(0))[0]
    term(term.values(model, tokens, torch.empty(0), drawn))[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in term.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.encoder.parameters())


@pytest.mark.parametrize(
    ("mask_ratio", "patches", "masked"), [(0.5, 16, 8), (0.6, 9, 5), (0.01, 16, 1), (0.75, 64, 48)]
)
def test_how_many_are_masked(mask_ratio, patches, masked):
    assert MaskedConfig(mask_ratio=mask_ratio).masked(patches) == masked


def test_something_must_be_left_to_see(make_model):
    with pytest.raises(ValueError, match="mask_ratio must lie between 0 and 1"):
        MaskedConfig(mask_ratio=1.0)
    with pytest.raises(ConfigError, match=r"generative\.mask_ratio: 0\.9 of 4 patches are all of them"):
        build_objective(VariantConfig(1, 0, generative=MaskedConfig(mask_ratio=0.9)), make_model(), DATA, 0)
