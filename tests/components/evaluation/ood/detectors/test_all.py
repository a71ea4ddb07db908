"""What every detector must do."""

import inspect
from dataclasses import fields, replace

import numpy as np
import pytest

from components.evaluation.ood import registry
from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.gaussian import ClassGaussians
from components.evaluation.probes.linear_probe import Labelled, LinearProbe

DETECTORS = registry.load_all()
NEED_LIKELIHOOD = {"nll", "typicality", "nll_complexity", "likelihood_ratio"}


def discriminant(train: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of the linear classifier that classes with one covariance call for."""
    fitted = ClassGaussians.fit(*train)
    weight = fitted.means @ fitted.whitening.T
    return weight, -0.5 * (fitted.means**2).sum(axis=1) - weight @ fitted.center


@pytest.mark.trains
# vim looks beyond the classes: test_logits.py shows it what it is made for
@pytest.mark.parametrize("name", [name for name in DETECTORS if name != "vim"])
def test_higher_means_more_ood(name, fitting_data, make_features):
    """Each detector, shown what it is made to notice."""
    rng = np.random.default_rng(0)
    n = 200
    train = fitting_data.train
    images = rng.integers(100, 104, (n, 8, 8, 1)).astype(np.uint8)
    probe = LinearProbe(*discriminant(train), temperature=1.0, l2=0.1)
    local = np.full(n, 5.0)
    val = Batch(make_features(n, 1).features, images, rng.normal(3, 0.1, n), local)
    fitted = DETECTORS[name].fit(InDistribution(train, val, probe), 5)
    usual = Batch(make_features(n, 2).features, images, rng.normal(3, 0.1, n), local)
    means = [train.features[train.labels == k].mean(axis=0) for k in (0, 1)]
    centre = np.mean(means, axis=0)  # between two classes: far from both, and the probe can't decide
    around = rng.normal(size=(n, centre.size)) * 0.1
    odd = Batch((centre + around).astype(np.float32), images, rng.normal(4, 0.1, n), local)
    scores = fitted.score(usual)
    assert scores.shape == (n,)
    assert scores.dtype == np.float64
    assert np.median(fitted.score(odd)) > np.quantile(scores, 0.9)


@pytest.mark.parametrize("name", DETECTORS)
def test_collapsed_features_give_finite_equal_scores(name, fitting_data):
    width = fitting_data.train.features.shape[1]
    same = np.full((50, width), 3.0, np.float32)
    batch = Batch(same, np.zeros((50, 8, 8, 1), np.uint8), np.full(50, 2.5), np.full(50, 4.0))
    collapsed = InDistribution(Labelled(same, np.arange(50) % 3), batch, fitting_data.probe)
    scores = DETECTORS[name].fit(collapsed, 5).score(batch)
    assert np.isfinite(scores).all()
    assert np.ptp(scores) == 0


@pytest.mark.parametrize("name", DETECTORS)
def test_fitting_twice_gives_the_same_scores(name, fitting_data, make_features):
    likelihoods = np.linspace(2, 4, 90), np.linspace(5, 4, 90)
    few = Batch(make_features(90, 4).features, np.zeros((90, 8, 8, 1), np.uint8), *likelihoods)
    data = InDistribution(make_features(300, 5), few, fitting_data.probe)
    first, second = (DETECTORS[name].fit(data, 5).score(few) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_which_detectors_need_a_likelihood(fitting_data, make_features, make_batch):
    assert {name for name, detector in DETECTORS.items() if "likelihood" in detector.needs} == NEED_LIKELIHOOD
    without = replace(fitting_data, train=make_features(300, 5))
    for name in set(DETECTORS) - NEED_LIKELIHOOD:
        batch = make_batch(make_features(20, 6).features)
        assert np.isfinite(DETECTORS[name].fit(without, 5).score(batch)).all()


def test_fitting_has_no_place_for_ood_or_test_data():
    assert [field.name for field in fields(InDistribution)] == ["train", "val", "probe"]
    for detector in DETECTORS.values():
        assert list(inspect.signature(detector.fit).parameters) == ["data", "k"]
