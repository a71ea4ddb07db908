from dataclasses import replace

import numpy as np
import pytest

from components.evaluation.ood.detectors import typicality
from components.evaluation.ood.detectors.rank_ensemble import MEMBERS, RankEnsemble


@pytest.fixture
def data(fitting_data, make_features, make_batch):
    bits = np.random.default_rng(0).normal(3, 0.1, 300)
    return replace(fitting_data, train=make_features(600, 0), val=make_batch(fitting_data.val.features, bits))


@pytest.mark.parametrize("likelihood", [True, False])
def test_it_is_the_mean_rank_of_a_naive_loop(data, queries, make_batch, likelihood):
    if not likelihood:
        data = replace(data, val=make_batch(data.val.features))
    batch = make_batch(queries, np.linspace(2, 4, 100) if likelihood else None)
    members = [member for member in MEMBERS if likelihood or member is not typicality.DETECTOR]
    assert len(members) == len(MEMBERS) - (not likelihood)
    expected = np.zeros(100)
    for member in members:
        fitted = member.fit(data, 5)
        reference = fitted.score(data.val)
        expected += [np.mean(reference < score) + np.mean(reference == score) / 2 for score in fitted.score(batch)]
    np.testing.assert_allclose(RankEnsemble.fit(data, 5).score(batch), expected / len(members))


def test_a_members_unit_does_not_matter(data, queries, make_batch):
    bits = np.linspace(2, 4, 100)
    in_nats = replace(data, val=make_batch(data.val.features, data.val.bits_per_dim * np.log(2)))
    np.testing.assert_allclose(
        RankEnsemble.fit(data, 5).score(make_batch(queries, bits)),
        RankEnsemble.fit(in_nats, 5).score(make_batch(queries, bits * np.log(2))),
        atol=1 / 300,  # rounding may swap neighbours
    )


def test_scores_lie_between_zero_and_one(data, queries, make_batch):
    fitted = RankEnsemble.fit(data, 5)
    assert fitted.score(data.val).mean() == pytest.approx(0.5)
    scores = fitted.score(make_batch(queries * 100, np.full(100, 50.0)))
    assert ((scores >= 0) & (scores <= 1)).all()
