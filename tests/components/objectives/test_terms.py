from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.objectives.config import ContrastiveConfig, GenerativeConfig, VariantConfig
from components.objectives.nt_xent import nt_xent
from components.objectives.terms import CONTRASTIVE, GENERATIVE, contrastive_loss, generative_loss


def projections(views: int = 2, images: int = 4) -> Tensor:
    return F.normalize(torch.randn(views, images, 5, generator=torch.Generator().manual_seed(0)), dim=2)


def test_every_term_that_the_configuration_knows_is_listed():
    for config, listed in ((ContrastiveConfig, CONTRASTIVE), (GenerativeConfig, GENERATIVE)):
        assert "name" in {f.name for f in fields(config)}
        assert set(get_args(get_type_hints(config)["name"])) == set(listed)


@pytest.mark.parametrize("views", [2, 3])
def test_the_contrastive_term_is_weighted_and_its_metrics_are_not(views):
    z = projections(views)
    loss, metrics = contrastive_loss(z, VariantConfig(1, 3, contrastive=ContrastiveConfig(temperature=0.4)))
    plain = nt_xent(z.flatten(0, 1), 0.4, views)
    torch.testing.assert_close(loss, 3 * plain)
    torch.testing.assert_close(metrics["contrastive_loss"], plain)
    assert set(metrics) == {"contrastive_loss", "contrastive_accuracy"}


def test_the_generative_term_is_weighted_and_its_metrics_are_not():
    nll = torch.rand(8, 4, 3, generator=torch.Generator().manual_seed(0))
    loss, metrics = generative_loss(nll, VariantConfig(0.25, 1))
    torch.testing.assert_close(loss, 0.25 * nll.mean())
    torch.testing.assert_close(metrics, {"nll_nats_per_token": nll.mean()})


def test_accuracy_counts_the_views_whose_nearest_other_view_is_of_their_image():
    corners = torch.eye(4)
    for second, accuracy in ((corners, 1.0), (corners.roll(1, 0), 0.0), (corners[[0, 1, 3, 2]], 0.5)):
        metrics = contrastive_loss(torch.stack([corners, second]), VariantConfig(0, 1))[1]
        assert metrics["contrastive_accuracy"].item() == accuracy
    third = torch.stack([corners, corners, corners.roll(1, 0)])  # two of three views of an image agree
    assert contrastive_loss(third, VariantConfig(0, 1))[1]["contrastive_accuracy"].item() == pytest.approx(2 / 3)


def test_metrics_hold_no_graph():
    z, nll = projections().requires_grad_(), torch.rand(8, 4, 3).requires_grad_()
    for loss, metrics in (contrastive_loss(z, VariantConfig(1, 1)), generative_loss(nll, VariantConfig(1, 1))):
        assert loss.requires_grad
        assert not any(value.requires_grad for value in metrics.values())
