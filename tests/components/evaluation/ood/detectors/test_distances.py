import warnings

import numpy as np
import pytest
import torch
from pytorch_ood.detector import KNN, RMD
from pytorch_ood.detector import Mahalanobis as PublicMahalanobis
from sklearn.covariance import LedoitWolf

from components.errors import UserError
from components.evaluation.ood import gaussian
from components.evaluation.ood.base import InDistribution
from components.evaluation.ood.detectors import ssd
from components.evaluation.ood.detectors.knn import Knn
from components.evaluation.ood.detectors.mahalanobis import Mahalanobis
from components.evaluation.ood.detectors.relative_mahalanobis import RelativeMahalanobis
from components.evaluation.ood.detectors.ssd import Ssd
from components.evaluation.ood.gaussian import ClassGaussians
from components.evaluation.ood.metrics import auroc
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.neighbours import unit_length


def test_distances_are_those_of_a_naive_loop(fitting_data, queries, monkeypatch):
    monkeypatch.setattr(gaussian, "ROWS_AT_ONCE", 7)  # several blocks and a rest
    features, labels = fitting_data.train.features.astype(np.float64), fitting_data.train.labels
    means = np.stack([features[labels == k].mean(axis=0) for k in range(3)])
    shrunk = LedoitWolf(assume_centered=True).fit(features - means[labels])
    naive = [[(x - mean) @ shrunk.precision_ @ (x - mean) for mean in means] for x in queries.astype(np.float64)]
    fitted = ClassGaussians.fit(*fitting_data.train)
    np.testing.assert_allclose(fitted.squared_distances(queries), naive, rtol=1e-5)
    np.testing.assert_allclose(fitted.whitening @ fitted.whitening.T, shrunk.precision_, rtol=1e-5)
    assert fitted.log_volume == pytest.approx(np.linalg.slogdet(shrunk.precision_)[1] / 2)


def test_mahalanobis_is_the_public_librarys(fitting_data, queries, make_batch):
    public = PublicMahalanobis(None).fit_features(*map(torch.from_numpy, fitting_data.train))
    expected = public.predict_features(torch.from_numpy(queries)).numpy()  # of the unscaled scatter matrix, halved
    scores = Mahalanobis.fit(fitting_data, k=1).score(make_batch(queries))
    count = len(fitting_data.train.features)
    np.testing.assert_allclose(scores**2, 2 * expected * count, rtol=0.02)  # shrinkage is all the difference


def test_relative_mahalanobis_is_the_public_librarys(fitting_data, queries, make_batch):
    public = RMD(None).fit_features(*map(torch.from_numpy, fitting_data.train))
    expected = public.predict_features(torch.from_numpy(queries)).numpy() * len(fitting_data.train.features)
    scores = RelativeMahalanobis.fit(fitting_data, k=1).score(make_batch(queries))
    np.testing.assert_allclose(scores, expected, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("k", [1, 7])
def test_knn_is_the_public_librarys(fitting_data, queries, make_batch, k):
    public = KNN(None, k=k).fit_features(*map(torch.from_numpy, fitting_data.train))
    expected = public.predict_features(torch.from_numpy(queries)).numpy()
    np.testing.assert_allclose(Knn.fit(fitting_data, k).score(make_batch(queries)), expected, rtol=1e-3, atol=1e-6)


def test_more_neighbours_than_training_images(fitting_data):
    with pytest.raises(UserError, match=r"ood\.k: 70000 neighbours asked of 60000"):
        Knn.fit(fitting_data, 70_000)


def directions(count: int, n: int, seed: int) -> np.ndarray:
    """Features of several lengths around `count` directions of a sphere in ten dimensions, float32 (N, 10)."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(count, 10))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    points = centres[np.arange(n) % count] + 0.05 * rng.normal(size=(n, 10))
    return (points * rng.uniform(0.5, 4, (n, 1))).astype(np.float32)


def ssd_of(train: np.ndarray, val: np.ndarray, make_batch, probe) -> Ssd:
    return Ssd.fit(InDistribution(Labelled(train, np.zeros(len(train), int)), make_batch(val), probe), k=1)


@pytest.mark.trains
def test_ssd_is_the_smallest_distance_of_a_naive_loop(fitting_data, make_batch):
    train, val, test = (directions(5, n, seed) for n, seed in ((2000, 0), (500, 1), (60, 2)))
    fitted = ssd_of(train, val, make_batch, fitting_data.probe)
    assert len(fitted.clusters) == 5

    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    mean, scale = unit.mean(axis=0), unit.std(axis=0)
    standardised = (unit - mean) / scale
    expected = np.full(60, np.inf)
    for which in range(5):  # the directions are far apart, so that k-means finds them
        cluster = standardised[which::5].astype(np.float64)
        shrunk = LedoitWolf().fit(cluster)
        for i, x in enumerate((test / np.linalg.norm(test, axis=1, keepdims=True) - mean) / scale):
            expected[i] = min(expected[i], (x - shrunk.location_) @ shrunk.precision_ @ (x - shrunk.location_))
    np.testing.assert_allclose(fitted.score(make_batch(test)), expected, rtol=1e-3)


@pytest.mark.trains
@pytest.mark.parametrize("count", [1, 5, 10])
def test_validation_chooses_the_number_of_clusters(count, fitting_data, make_batch):
    fitted = ssd_of(directions(count, 3000, 0), directions(count, 500, 1), make_batch, fitting_data.probe)
    assert len(fitted.clusters) == count


@pytest.mark.trains
def test_ssd_needs_no_labels_to_see_between_the_clusters(fitting_data, make_batch):
    train, val, test = (directions(5, n, seed) for n, seed in ((2000, 0), (500, 1), (500, 2)))
    between = unit_length(test) + unit_length(directions(5, 501, 3)[1:])  # of one direction and the next
    fitted = ssd_of(train, val, make_batch, fitting_data.probe)
    assert auroc(fitted.score(make_batch(test)), fitted.score(make_batch(between))) > 0.99
    other = InDistribution(Labelled(train, np.arange(2000) % 7), make_batch(val), fitting_data.probe)
    np.testing.assert_array_equal(Ssd.fit(other, 1).score(make_batch(test)), fitted.score(make_batch(test)))


def test_a_cluster_of_one_image_is_no_cluster(fitting_data, make_batch, monkeypatch):
    monkeypatch.setattr(ssd, "k_means", lambda features, count: np.arange(len(features)) // 500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = ssd_of(directions(1, 501, 0), directions(1, 100, 1), make_batch, fitting_data.probe)
    assert len(fitted.clusters) == 1
    assert np.isfinite(fitted.score(make_batch(directions(1, 501, 0)))).all()


@pytest.mark.parametrize("n", [2, 20])
def test_very_few_images(n, fitting_data, make_batch):
    few = np.random.default_rng(0).normal(size=(n, 10)).astype(np.float32)
    scores = ssd_of(few, few, make_batch, fitting_data.probe).score(make_batch(few * 2 + 1))
    assert np.isfinite(scores).all()
