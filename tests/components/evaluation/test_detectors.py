import inspect
import io
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_ood.detector import KNN, RMD, EnergyBased
from pytorch_ood.detector import Mahalanobis as PublicMahalanobis
from sklearn.covariance import LedoitWolf

from components.errors import UserError
from components.evaluation import gaussian
from components.evaluation.detectors import (
    Batch,
    Energy,
    InDistribution,
    Knn,
    Mahalanobis,
    Msp,
    Nll,
    NllComplexity,
    RelativeMahalanobis,
    png_bits_per_dim,
)
from components.evaluation.gaussian import ClassGaussians
from components.evaluation.ood import DETECTORS
from components.evaluation.probes import Labelled, LinearProbe

CLASSES, WIDTH = 3, 4


def features_of(n: int, seed: int) -> Labelled:
    """Classes with their own means and one full covariance."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    mixing = np.eye(WIDTH) + 0.3 * np.random.default_rng(99).normal(size=(WIDTH, WIDTH))
    means = 8 * np.eye(CLASSES, WIDTH)
    return Labelled((rng.normal(size=(n, WIDTH)) @ mixing + means[labels] + 10).astype(np.float32), labels)


def batch_of(features: np.ndarray, bits: np.ndarray | None = None) -> Batch:
    return Batch(features, np.zeros((len(features), 8, 8, 1), np.uint8), bits)


@pytest.fixture(scope="module")
def data() -> InDistribution:
    rng = np.random.default_rng(0)
    probe = LinearProbe(rng.normal(size=(CLASSES, WIDTH)), rng.normal(size=CLASSES), temperature=2.0, l2=0.1)
    return InDistribution(features_of(60_000, 0), batch_of(features_of(300, 1).features), probe)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.concatenate([features_of(50, 2).features, features_of(50, 3).features * 1.5])


def test_distances_are_those_of_a_naive_loop(data, queries, monkeypatch):
    monkeypatch.setattr(gaussian, "ROWS_AT_ONCE", 7)  # several blocks and a rest
    features, labels = data.train.features.astype(np.float64), data.train.labels
    means = np.stack([features[labels == k].mean(axis=0) for k in range(CLASSES)])
    shrunk = LedoitWolf(assume_centered=True).fit(features - means[labels])
    naive = [[(x - mean) @ shrunk.precision_ @ (x - mean) for mean in means] for x in queries.astype(np.float64)]
    fitted = ClassGaussians.fit(*data.train)
    np.testing.assert_allclose(fitted.squared_distances(queries), naive, rtol=1e-5)
    np.testing.assert_allclose(fitted.whitening @ fitted.whitening.T, shrunk.precision_, rtol=1e-5)


def test_mahalanobis_is_the_public_librarys(data, queries):
    public = PublicMahalanobis(None).fit_features(*map(torch.from_numpy, data.train))
    expected = public.predict_features(torch.from_numpy(queries)).numpy()  # of the unscaled scatter matrix, halved
    scores = Mahalanobis.fit(data, k=1).score(batch_of(queries))
    np.testing.assert_allclose(scores**2, 2 * expected * len(data.train.features), rtol=0.02)  # shrinkage is all


def test_relative_mahalanobis_is_the_public_librarys(data, queries):
    public = RMD(None).fit_features(*map(torch.from_numpy, data.train))
    expected = public.predict_features(torch.from_numpy(queries)).numpy() * len(data.train.features)
    scores = RelativeMahalanobis.fit(data, k=1).score(batch_of(queries))
    np.testing.assert_allclose(scores, expected, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("k", [1, 7])
def test_knn_is_the_public_librarys(data, queries, k):
    public = KNN(None, k=k).fit_features(*map(torch.from_numpy, data.train))
    expected = public.predict_features(torch.from_numpy(queries)).numpy()
    np.testing.assert_allclose(Knn.fit(data, k).score(batch_of(queries)), expected, rtol=1e-3, atol=1e-6)


def test_probe_detectors_are_the_public_librarys(data, queries):
    logits = torch.from_numpy(data.probe.logits(queries))
    np.testing.assert_allclose(Energy.fit(data, 1).score(batch_of(queries)), EnergyBased.score(logits).numpy())
    np.testing.assert_allclose(
        Msp.fit(data, 1).score(batch_of(queries)), -logits.softmax(dim=1).max(dim=1).values.log().numpy()
    )


def test_msp_tells_saturated_probabilities_apart(data):
    confident = LinearProbe(np.array([[100.0], [0.0]]), np.zeros(2), temperature=1.0, l2=0.1)
    scores = Msp(confident).score(batch_of(np.array([[5.0], [1.0]])))
    assert scores[0] <= scores[1] < 1e-12


def test_likelihood_detectors():
    rng = np.random.default_rng(0)
    images = np.stack([np.zeros((16, 16, 3)), rng.integers(0, 256, (16, 16, 3))]).astype(np.uint8)
    batch = Batch(np.zeros((2, WIDTH)), images, np.array([1.0, 8.0]))
    np.testing.assert_array_equal(Nll().score(batch), [1, 8])
    complexity = png_bits_per_dim(images)
    assert complexity[0] < 1.1 < 8 < complexity[1]  # noise can't be compressed, and PNG adds its header
    np.testing.assert_allclose(NllComplexity().score(batch), [1 - complexity[0], 8 - complexity[1]])


@pytest.mark.parametrize("channels", [1, 3])
def test_png_size_is_a_real_files(channels, tmp_path):
    image = np.random.default_rng(0).integers(0, 99, (6, 5, channels)).astype(np.uint8)
    Image.fromarray(image.squeeze()).save(tmp_path / "image.png", optimize=True)
    assert png_bits_per_dim(image[None])[0] == 8 * (tmp_path / "image.png").stat().st_size / image.size
    assert np.array_equal(np.asarray(Image.open(io.BytesIO((tmp_path / "image.png").read_bytes()))), image.squeeze())


@pytest.mark.parametrize("name", DETECTORS)
def test_higher_means_more_ood(name, data):
    """Each detector, shown what it is made to notice."""
    rng = np.random.default_rng(0)
    n = 200
    images = rng.integers(100, 104, (n, 8, 8, 1)).astype(np.uint8)
    val = features_of(n, 1)
    probe = LinearProbe(*_discriminant(data.train), temperature=1.0, l2=0.1)
    fitted = DETECTORS[name].fit(
        InDistribution(data.train, Batch(val.features, images, rng.normal(3, 0.1, n)), probe), 5
    )
    usual = Batch(features_of(n, 2).features, images, rng.normal(3, 0.1, n))
    means = [data.train.features[data.train.labels == k].mean(axis=0) for k in (0, 1)]
    centre = np.mean(means, axis=0)  # between two classes: far from both, and the probe can't decide
    odd = Batch((centre + rng.normal(size=(n, WIDTH)) * 0.1).astype(np.float32), images, rng.normal(4, 0.1, n))
    scores = fitted.score(usual)
    assert scores.shape == (n,)
    assert scores.dtype == np.float64
    assert np.median(fitted.score(odd)) > np.quantile(scores, 0.9)


def _discriminant(train: Labelled) -> tuple[np.ndarray, np.ndarray]:
    fitted = ClassGaussians.fit(*train)
    weight = fitted.means @ fitted.whitening.T
    return weight, -0.5 * (fitted.means**2).sum(axis=1) - weight @ fitted.center


def test_collapsed_features_give_finite_equal_scores(data):
    same = np.full((50, WIDTH), 3.0, np.float32)
    collapsed = InDistribution(Labelled(same, np.arange(50) % CLASSES), batch_of(same), data.probe)
    for name in ("mahalanobis", "relative_mahalanobis", "knn", "fused"):
        scores = DETECTORS[name].fit(collapsed, 5).score(batch_of(same))
        assert np.isfinite(scores).all()
        assert np.ptp(scores) == 0


def test_fitting_has_no_place_for_ood_or_test_data():
    assert [field.name for field in fields(InDistribution)] == ["train", "val", "probe"]
    for detector in DETECTORS.values():
        assert list(inspect.signature(detector.fit).parameters) == ["data", "k"]


def test_more_neighbours_than_training_images(data):
    with pytest.raises(UserError, match=r"ood\.k: 70000 neighbours asked of 60000"):
        Knn.fit(data, 70_000)


def test_a_likelihood_that_is_missing_is_not_guessed():
    with pytest.raises(ValueError, match="needs a likelihood"):
        Nll().score(batch_of(np.zeros((2, WIDTH))))
