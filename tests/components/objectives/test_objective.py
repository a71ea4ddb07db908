import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.cmc import CMCConfig
from components.objectives.contrastive.nt_xent import NTXentConfig
from components.objectives.contrastive.nt_xent.term import nt_xent
from components.objectives.objective import Objective, build_objective
from components.objectives.registry import CONTRASTIVE

DATA = TrainingSet(np.zeros((4096, 4, 4, 1), np.uint8), np.arange(4096))
ON_GREY_IMAGES = [config for config in CONTRASTIVE.values() if config is not CMCConfig]


@pytest.fixture
def objective(make_model):
    def of(variant: VariantConfig, seed: int = 0) -> Objective:
        return build_objective(variant, make_model(1, 4, w_gen=variant.w_gen, w_con=variant.w_con), DATA, seed)

    return of


def batch(views: int = 2, images: int = 4) -> Batch:
    z = F.normalize(torch.randn(views, images, 5, generator=torch.Generator().manual_seed(0)), dim=2).requires_grad_()
    return Batch(z, z, torch.arange(images), torch.Generator())


@pytest.mark.parametrize("config", ON_GREY_IMAGES, ids=lambda config: config.name)
def test_what_a_term_owns_begins_by_the_seed_and_is_none_of_the_models(objective, make_model, config):
    variant = VariantConfig(0, 1, contrastive=config())
    first, again, other = (objective(variant, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) or value.isnan() for name, value in first.items())
    drawn = [
        name for name in first if "encoder" not in name and first[name].is_floating_point() and first[name].ndim > 1
    ]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    model = make_model(1, 4, w_gen=0)
    names = list(model.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    build_objective(variant, model, DATA, 0)
    assert torch.equal(torch.rand(3), expected)  # nobody else's numbers
    assert list(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_term_of_weight_0_is_not_made(objective):
    assert objective(VariantConfig(1, 0)).contrastive is None
    assert objective(VariantConfig(0, 1)).generative is None


@pytest.mark.parametrize("views", [2, 3])
def test_the_contrastive_term_is_weighted_and_its_metrics_are_not(objective, views):
    given = batch(views)
    loss, metrics = objective(VariantConfig(1, 3, contrastive=NTXentConfig(temperature=0.4))).contrast(given)
    plain = nt_xent(given.projections.flatten(0, 1), 0.4, views)
    torch.testing.assert_close(loss, 3 * plain)
    torch.testing.assert_close(metrics["contrastive_loss"], plain.detach())
    assert set(metrics) == {"contrastive_loss", "contrastive_accuracy"}


def test_the_generative_term_is_weighted_and_its_metrics_are_not(objective):
    nll = torch.rand(8, 4, 3, generator=torch.Generator().manual_seed(0))
    loss, metrics = objective(VariantConfig(0.25, 1)).generate(nll)
    torch.testing.assert_close(loss, 0.25 * nll.mean())
    torch.testing.assert_close(metrics, {"nll_nats_per_token": nll.mean()})


def test_accuracy_counts_the_views_whose_nearest_other_view_is_of_their_image(objective):
    def accuracy(*views: Tensor) -> float:
        z = torch.stack(views)
        given = Batch(z, z, torch.arange(4), torch.Generator())
        return objective(VariantConfig(0, 1)).contrast(given)[1]["contrastive_accuracy"].item()

    corners = torch.eye(4)
    assert accuracy(corners, corners) == 1
    assert accuracy(corners, corners.roll(1, 0)) == 0
    assert accuracy(corners, corners[[0, 1, 3, 2]]) == 0.5
    assert accuracy(corners, corners, corners.roll(1, 0)) == pytest.approx(2 / 3)  # two of three views agree


def test_metrics_hold_no_graph(objective):
    made = objective(VariantConfig(1, 1))
    for loss, metrics in (made.contrast(batch()), made.generate(torch.rand(8, 4, 3).requires_grad_())):
        assert loss.requires_grad
        assert not any(value.requires_grad for value in metrics.values())
