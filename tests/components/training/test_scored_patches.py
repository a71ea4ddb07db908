"""Training on a random share of the patches: the same loss and gradient on average, and the same draws otherwise."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from components.data.config import AugmentationConfig
from components.model.gcrl import GCRL
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.autoregressive.term import Autoregressive
from components.objectives.objective import Objective
from components.training.data import step_generator
from components.training.distributed import Ranks
from components.training.step import Execution, pass_through
from components.training.views import Views, draw_views

CPU = torch.device("cpu")
ALONE = Ranks()


@pytest.fixture
def model(make_model) -> GCRL:
    return make_model(2, 8, 8)


def term(model: GCRL, scored_ratio: float = 1.0, views: int = 2) -> Autoregressive:
    config = AutoregressiveConfig(scored_ratio=scored_ratio, scored_views=views)
    return Autoregressive(config, model, TrainingSet(np.empty((0, 8, 8, 1), np.uint8)))


def drawn(
    model: GCRL, pixels: torch.Tensor, scored_ratio: float, step: int = 0, ranks: Ranks = ALONE, scored_views: int = 2
) -> Views:
    objective = Objective(None, term(model, scored_ratio, scored_views))
    augmentation = AugmentationConfig(translate=0.2)
    return draw_views(model, objective, pixels, 2, augmentation, step_generator(0, step, CPU), ranks)


@pytest.mark.parametrize("likelihood", ["palette", "logistic_mixture", "categorical"])
def test_a_scored_patch_has_the_likelihood_that_it_has_among_all(make_model, likelihood):
    model = make_model(2, 6, 8, channels=3, likelihood=likelihood)
    tokens = model.tokenizer(torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)))
    scored = torch.tensor([[3, 0], [8, 1], [2, 5], [7, 4]])
    with torch.no_grad():
        every, some = model(tokens), model(tokens, scored=scored)
    torch.testing.assert_close(some.nll, every.nll[torch.arange(4)[:, None], scored])
    assert torch.equal(some.features, every.features)


def test_loss_and_gradient_are_those_of_all_patches_on_average(model, stripes):
    views = drawn(model, torch.from_numpy(stripes[0][:4]), 1)
    tokens, patches = views.tokens.flatten(0, 1), model.patches

    def loss_and_gradient(scored: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        nll = model(tokens, views.condition.flatten(0, 1), scored).nll
        loss, _ = term(model)(nll)
        gradients = torch.autograd.grad(loss, list(model.decoder.parameters()))
        return loss.detach(), torch.cat([g.flatten() for g in gradients])

    whole = loss_and_gradient(None)
    each = [loss_and_gradient(torch.full((8, 1), t)) for t in range(patches)]  # every patch is as likely as another
    for found, expected in zip(zip(*each, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(found).mean(0), expected, atol=1e-5, rtol=1e-4)


def test_every_patch_is_scored_equally_often(model, stripes):
    pixels = torch.from_numpy(stripes[0][:32])
    scored = torch.stack([drawn(model, pixels, 0.25, step).drawn for step in range(20)])  # (20, 2, 32, 4)
    assert scored.shape == (20, 2, 32, 4)
    assert all(len(set(row)) == 4 for row in scored.flatten(0, 2).tolist())  # a patch is scored once
    assert chisquare(np.bincount(scored.flatten(), minlength=16)).pvalue > 0.001
    assert len({tuple(row) for row in scored.flatten(0, 2).tolist()}) > 1000  # other patches for each view and step


def test_the_ratio_decides_nothing_else(model, stripes):
    pixels = torch.from_numpy(stripes[0][:8])
    whole, some = drawn(model, pixels, 1), drawn(model, pixels, 0.5)
    assert whole.drawn is None
    assert torch.equal(whole.tokens, some.tokens)
    assert torch.equal(whole.condition, some.condition)
    assert drawn(model, pixels, 1e-6).drawn.shape == (2, 8, 1)


def test_processes_score_the_patches_that_one_alone_would_score(model, stripes):
    pixels = torch.from_numpy(stripes[0][:8])
    ranks = [Ranks(rank, 2) for rank in range(2)]
    shares = [drawn(model, pixels[r.share(8)], 0.5, ranks=r).drawn for r in ranks]
    assert torch.equal(torch.cat(shares, 1), drawn(model, pixels, 0.5).drawn)


def test_one_scored_view_is_the_first_of_those_contrasted(model, stripes):
    pixels = torch.from_numpy(stripes[0][:8])
    both, one = (drawn(model, pixels, 1, scored_views=n) for n in (2, 1))
    assert torch.equal(one.tokens, both.tokens)
    assert torch.equal(one.condition, both.condition[:1])
    execution = Execution(partial(term(model).represent, model), model.encode)
    features, nll = pass_through(one, execution)
    every, expected = pass_through(both, execution)
    torch.testing.assert_close(features, every)
    torch.testing.assert_close(nll, expected[:8])


def test_without_a_contrast_only_scored_views_are_drawn():
    one = AutoregressiveConfig(scored_views=1)
    assert VariantConfig(1, 0).own_views == 2
    assert VariantConfig(1, 0, generative=one).own_views == 1
    assert VariantConfig(1, 1, generative=one).own_views is None
