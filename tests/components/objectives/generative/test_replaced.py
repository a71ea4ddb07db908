import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.model.config import ModelConfig
from components.model.sampling import sample_patches
from components.objectives.base import TrainingSet
from components.objectives.generative.replaced import ReplacedConfig
from components.objectives.generative.replaced.term import Replaced, quarter

DATA = TrainingSet(np.zeros((4, 6, 6, 1), np.uint8))
NOTHING = torch.empty(0)


@pytest.fixture(scope="module")
def make(make_model):
    """A model of nine patches and its term, every parameter moved at random."""

    def of(colours: int = 3, **shape) -> tuple:
        model = make_model(2, 6, colours, generative=ReplacedConfig(), **shape)
        term = Replaced(ReplacedConfig(), model, DATA).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in term.parameters():
                parameter += 0.4 * torch.randn(parameter.shape, generator=generator)
        return model, term

    return of


def tokens_of(term: Replaced, n: int = 6) -> Tensor:
    return torch.randint(3, (n, 9, *term.masked.head.shape), generator=torch.Generator().manual_seed(0))


def drawn_for(term: Replaced, n: int = 6) -> Tensor:
    return term.draw(1, n, torch.Generator().manual_seed(2))[0]


@pytest.mark.parametrize("likelihood", ["palette", "logistic_mixture", "categorical"])
@torch.no_grad()
def test_the_losses_are_those_of_a_naive_loop_over_patches(make, likelihood):
    model, term = make(likelihood=likelihood)
    tokens, drawn = tokens_of(term), drawn_for(term)
    nll, detection, right, replaced = 0.0, 0.0, 0, 0
    for image, numbers in zip(tokens, drawn, strict=True):
        masked = numbers[:9].argsort()[:4].tolist()
        contexts = term.masked.contexts(term.generator, image[None], torch.tensor([masked]))[0]
        seen, rest = image.clone(), numbers[9:].view(4, -1)
        for patch, uniform in zip(masked, rest, strict=True):
            nll += term.masked.head.nll(contexts[patch], image[patch]).mean().item() / 4
            seen[patch] = sample_patches(term.masked.head, contexts[patch], uniform)
        logits = term.discriminator(model.norm(model.encode(seen[None])))[0, 1:, 0]
        for patch in range(9):
            other = not torch.equal(seen[patch], image[patch])
            assert other <= (patch in masked)
            p = 1 / (1 + math.exp(-logits[patch].item()))
            detection -= math.log(p if other else 1 - p) / 9
            right += (p > 0.5) == other
            replaced += other
    values = term.values(model, tokens, NOTHING, drawn)
    assert values.shape == (6, 4)
    loss, metrics = term(values)
    assert metrics["generator_nll_nats_per_token"].item() == pytest.approx(nll / 6, rel=1e-4)
    assert metrics["detection_loss"].item() == pytest.approx(detection / 6, rel=1e-4)
    assert metrics["detection_accuracy"].item() == pytest.approx(right / 54)
    assert metrics["replaced_share"].item() == pytest.approx(replaced / 54)
    assert loss.item() == pytest.approx((nll + 50 * detection) / 6, rel=1e-4)
    assert replaced > 0


def test_each_loss_trains_its_own_model_alone(make):
    model, term = make()
    of_generator = [*term.generator.named_parameters(), *term.masked.named_parameters()]
    of_discriminator = [
        *model.encoder.named_parameters(),
        *model.norm.named_parameters(),
        *term.discriminator.named_parameters(),
    ]
    for column, trained, untouched in ((0, of_generator, of_discriminator), (1, of_discriminator, of_generator)):
        model.zero_grad()
        term.zero_grad()
        term.values(model, tokens_of(term), NOTHING, drawn_for(term))[:, column].mean().backward()
        assert not any(p.grad is not None and p.grad.any() for _, p in untouched)
        assert [name for name, p in trained if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_patches_are_drawn_as_often_as_they_are_likely(make):
    from scipy.stats import chisquare

    _, term = make(colours=2)
    head, n = term.masked.head, 20_000
    context = torch.randn(4, generator=torch.Generator().manual_seed(0))
    every = torch.tensor(list(itertools.product(range(2), repeat=4)))
    expected = torch.exp(-head.nll(context.expand(16, -1), every).double().sum(1)).numpy() * n
    uniform = torch.rand(n, 4, generator=torch.Generator().manual_seed(1))
    drawn = sample_patches(head, context.expand(n, -1), uniform)
    counts = np.bincount((drawn @ torch.tensor([8, 4, 2, 1])).numpy(), minlength=16)
    assert expected.max() > 2 * expected.min()
    assert chisquare(counts, expected * n / expected.sum()).pvalue > 0.001


@torch.no_grad()
def test_what_is_drawn_as_it_was_counts_as_original(make):
    """What the generator draws depends on visible patches alone: in an image that holds it already nothing changes."""
    model, term = make()
    tokens, drawn = tokens_of(term), drawn_for(term)
    masked, image = drawn[:, :9].argsort(-1)[:, :4], torch.arange(6)[:, None]
    contexts = term.masked.contexts(term.generator, tokens, masked)[image, masked]
    tokens[image, masked] = sample_patches(term.masked.head, contexts, drawn[:, 9:].unflatten(1, (4, -1)))
    _, metrics = term(term.values(model, tokens, NOTHING, drawn))
    assert metrics["replaced_share"] == 0
    originals = F.softplus(term.discriminator(model.norm(model.encode(tokens)))[:, 1:]).mean()
    assert metrics["detection_loss"].item() == pytest.approx(originals.item(), rel=1e-4)


@torch.no_grad()
def test_the_features_are_those_of_the_image_as_it_is(make):
    model, term = make()
    tokens, drawn = tokens_of(term), drawn_for(term)
    features, values = term.represent(model, tokens, NOTHING, drawn[:4], 4)
    assert torch.equal(features, model(tokens).features)
    torch.testing.assert_close(values, term.values(model, tokens[:4], NOTHING, drawn[:4]))


def test_the_generator_is_a_quarter_as_wide_and_as_deep():
    found = quarter(ModelConfig(4, size="base"))
    assert (found.width, found.local_width, found.heads, found.encoder_layers) == (192, 16, 3, 10)
    assert quarter(ModelConfig(2, width=100, heads=10)).width == 24
    assert quarter(ModelConfig(2, width=2, heads=2)).width == 1
