from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import torch
from torch.nn import functional as F

from components.model.gcrl import Outputs
from components.objectives.config import ContrastiveConfig, GenerativeConfig, VariantConfig
from components.objectives.nt_xent import nt_xent
from components.objectives.terms import CONTRASTIVE, GENERATIVE, losses


@pytest.fixture
def outputs() -> Outputs:
    generator = torch.Generator().manual_seed(0)
    projections = F.normalize(torch.randn(8, 5, generator=generator), dim=1)
    return Outputs(torch.randn(8, 6, generator=generator), projections, torch.rand(8, 4, 3, generator=generator))


def test_every_term_that_the_configuration_knows_is_listed():
    for config, listed in ((ContrastiveConfig, CONTRASTIVE), (GenerativeConfig, GENERATIVE)):
        assert "name" in {f.name for f in fields(config)}
        assert set(get_args(get_type_hints(config)["name"])) == set(listed)


def test_terms_are_weighted_and_metrics_are_not(outputs):
    variant = VariantConfig(w_gen=0.25, w_con=3.0, contrastive=ContrastiveConfig(temperature=0.4))
    weighted, metrics = losses(outputs, variant)
    nll, contrastive = outputs.nll.mean(), nt_xent(outputs.projections, 0.4)
    assert list(weighted) == ["generative", "contrastive"]
    torch.testing.assert_close(weighted["generative"], 0.25 * nll)
    torch.testing.assert_close(weighted["contrastive"], 3 * contrastive)
    torch.testing.assert_close(metrics["nll_nats_per_token"], nll)
    torch.testing.assert_close(metrics["contrastive_loss"], contrastive)


@pytest.mark.parametrize(
    ("variant", "term", "named"),
    [
        (VariantConfig(1, 0), "generative", {"nll_nats_per_token"}),
        (VariantConfig(0, 1), "contrastive", {"contrastive_loss", "contrastive_accuracy"}),
    ],
)
def test_a_weight_of_zero_leaves_the_term_out(outputs, variant, term, named):
    missing = {"generative": "projections", "contrastive": "nll"}[term]
    without = Outputs(**{**outputs.__dict__, missing: None})
    weighted, metrics = losses(without, variant)
    assert set(weighted) == {term}
    assert set(metrics) == named


def test_accuracy_counts_the_views_whose_nearest_other_view_is_their_positive(outputs):
    corners = torch.eye(4)
    for second, accuracy in ((corners, 1.0), (corners.roll(1, 0), 0.0), (corners[[0, 1, 3, 2]], 0.5)):
        metrics = losses(Outputs(outputs.features, torch.cat([corners, second]), None), VariantConfig(0, 1))[1]
        assert metrics["contrastive_accuracy"].item() == accuracy


def test_metrics_hold_no_graph(outputs):
    outputs.nll.requires_grad_()
    outputs.projections.requires_grad_()
    weighted, metrics = losses(outputs, VariantConfig(1, 1))
    assert all(loss.requires_grad for loss in weighted.values())
    assert not any(value.requires_grad for value in metrics.values())
