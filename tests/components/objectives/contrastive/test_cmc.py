import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from components.errors import ConfigError
from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.cmc import CMCConfig
from components.objectives.contrastive.cmc.term import CMC, colours, find, lightness
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.objective import build_objective
from components.objectives.parts.colorspace import to_lab

DATA = TrainingSet(np.zeros((5, 4, 4, 3), np.uint8))


@pytest.fixture
def term(make_model) -> CMC:
    return CMC(CMCConfig(temperature=0.3), make_model(2, 4, channels=3), DATA)


def images(seed: int = 0) -> torch.Tensor:
    """Pale ones, whose colours can be shown at any lightness."""
    return 0.4 + 0.2 * torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 6), st.floats(0.05, 2), st.integers(0, 999))
def test_it_equals_a_naive_loop(unit, n, temperature, seed):
    a, o = unit(n, seed=seed), unit(n, seed=seed + 1)
    losses = []
    for i in range(n):
        scores = [math.exp(float(a[i] @ o[k]) / temperature) for k in range(n)]
        losses.append(-math.log(scores[i] / sum(scores)))
    assert find(a, o, temperature).item() == pytest.approx(sum(losses) / n, rel=1e-4, abs=1e-6)


def test_loss_and_gradient_equal_the_public_librarys(agree, unit):
    from pytorch_metric_learning.losses import NTXentLoss

    images = torch.arange(5)
    of_others = images.clone()  # the same object would say that both views are the same vectors
    agree(
        lambda a, o: find(F.normalize(a, dim=1), F.normalize(o, dim=1), 0.3),
        lambda a, o: NTXentLoss(0.3)(a, images, ref_emb=o, ref_labels=of_others),
        *(3 * unit(5), 3 * unit(5, seed=1)),
    )


def test_one_view_keeps_the_lightness_and_one_the_colours():
    whole = to_lab(images())
    grey, coloured = to_lab(lightness(images())), to_lab(colours(images()))
    torch.testing.assert_close(grey[:, 0], whole[:, 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(grey[:, 1:], torch.zeros_like(grey[:, 1:]), atol=1e-2, rtol=0)
    torch.testing.assert_close(coloured[:, 0], torch.full_like(coloured[:, 0], 50), atol=1e-3, rtol=0)
    torch.testing.assert_close(coloured[:, 1:], whole[:, 1:], atol=1e-2, rtol=0)


def test_the_first_view_is_the_image_that_a_likelihood_scores(term):
    views = torch.stack([images(seed) for seed in range(3)])
    seen = term.alter(views, None)
    assert torch.equal(seen[0], views[0])
    assert torch.equal(seen[1], lightness(views[1]))
    assert torch.equal(seen[2], colours(views[2]))
    VariantConfig(1, 1, contrastive=CMCConfig(), generative=AutoregressiveConfig(scored_views=1))


def test_each_view_finds_both_others_in_both_directions(term, unit):
    z = unit(3, 5).requires_grad_()
    loss, metrics = term(Batch(z, z, torch.arange(5), torch.Generator()))
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    torch.testing.assert_close(loss, sum(find(z[v], z[w], 0.3) for v, w in pairs) / 6)
    loss.backward()
    assert z.grad.abs().sum(-1).min() > 0
    assert not metrics["contrastive_accuracy"].requires_grad


def test_grey_images_are_refused(make_model):
    variant, data = VariantConfig(0, 1, contrastive=CMCConfig()), TrainingSet(np.zeros((5, 4, 4, 1), np.uint8))
    with pytest.raises(ConfigError, match=r"contrastive\.name: cmc tells lightness .* data\.channels is 1\."):
        build_objective(variant, make_model(2, 4), data, 0)
