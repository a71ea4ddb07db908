import math

import numpy as np
import pytest
import torch

from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.predictive.rotation import RotationConfig
from components.objectives.predictive.rotation.term import Rotation

DATA = TrainingSet(np.zeros((5, 4, 4, 1), np.uint8))


@pytest.fixture
def term(make_model) -> Rotation:
    return Rotation(RotationConfig(), make_model(2, 4), DATA)


def test_view_r_is_turned_by_r_quarters_counter_clockwise(term):
    corner = torch.zeros(4, 1, 1, 4, 4)
    corner[..., 0, 3] = 1  # upper right
    turned = term.alter(corner, None)
    places = [tuple(place) for place in turned.nonzero()[:, -2:].tolist()]
    assert places == [(0, 3), (0, 0), (3, 0), (3, 3)]
    views = torch.rand(4, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(term.alter(views, None)[0], views[0])  # what a likelihood scores


def test_the_loss_is_the_classifiers_cross_entropy_in_a_naive_loop(term):
    features = torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss, metrics = term(Batch(features, features, torch.arange(5), torch.Generator()))
    losses, right = [], 0
    for r in range(4):
        for i in range(5):
            scores = (features[r, i] @ term.classifier.weight.T + term.classifier.bias).tolist()
            losses.append(math.log(sum(math.exp(s) for s in scores)) - scores[r])
            right += scores[r] == max(scores)
    assert loss.item() == pytest.approx(sum(losses) / 20, rel=1e-5)
    assert metrics["rotation_accuracy"].item() == pytest.approx(right / 20)
    loss.backward()
    assert features.grad.abs().sum(-1).min() > 0
    assert term.classifier.weight.grad.abs().sum() > 0
    assert not metrics["rotation_accuracy"].requires_grad


def test_a_model_that_learns_rotations_alone_has_no_projection_head(make_model):
    assert not VariantConfig(0, 1, contrastive=RotationConfig()).projects
    assert VariantConfig(0, 1, contrastive=RotationConfig()).own_views == 4


def test_beside_a_likelihood_one_view_can_be_scored():
    with pytest.raises(ValueError, match=r"rotation alters all but 1 .* set generative\.scored_views to 1"):
        VariantConfig(1, 1, contrastive=RotationConfig())
    VariantConfig(1, 1, contrastive=RotationConfig(), generative=AutoregressiveConfig(scored_views=1))
    VariantConfig(1, 0, contrastive=RotationConfig())
