import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.errors import UserError
from components.evaluation.config import EmbedConfig
from components.evaluation.features.embed import embed_corrupted, features_and_bits
from components.evaluation.features.store import CORRUPTED, Embedded, evenly_spread, write_features
from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.detectors.fused import Fused
from components.evaluation.ood.run import threshold_at
from components.evaluation.probes.calibration import reliability
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.run import fit_linear
from components.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from components.evaluation.robustness.measure import (
    CALIBRATION_BINS,
    MEASURES,
    measure_robustness,
    open_corrupted,
    write_csv,
)
from components.plotting.robustness import robustness_by_severity

pytestmark = pytest.mark.trains


def stripes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Faint horizontal and vertical stripes: uint8 (N, 8, 8, 1) and which they are."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    wave = 128 + 25 * (-1) ** np.arange(8)[:, None] * np.ones((8, 8))
    images = np.where(labels[:, None, None] == 0, wave, wave.T) + rng.normal(0, 80, (n, 8, 8))
    return images.clip(0, 255).astype(np.uint8)[..., None], labels


def pixels(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An encoder that needs no training: pixels as features, their spread as the likelihood."""
    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    return flat, flat.std(axis=1).astype(np.float64)


def fit(encode):
    (train, train_labels), (val, val_labels) = stripes(300, 0), stripes(200, 1)
    features = [encode(images)[0] for images in (train, val)]
    probe = fit_linear(Labelled(features[0], train_labels), Labelled(features[1], val_labels), (0.01,))
    data = InDistribution(Labelled(features[0], train_labels), Batch(features[1], val, encode(val)[1]), probe)
    return probe, Fused.fit(data, 5)


def batch_of(images: np.ndarray) -> Batch:
    features, bits = pixels(images)
    return Batch(features, None, bits)


@pytest.fixture(scope="module")
def fitted():
    """Probe, detector and its threshold, fitted to clean pixels."""
    probe, fused = fit(pixels)
    return probe, fused, threshold_at(fused.score(batch_of(stripes(200, 1)[0])), 0.05)


@pytest.fixture(scope="module")
def metrics(fitted):
    images, labels = stripes(200, 2)
    copies = {c: {s: batch_of(corrupt(images, c, s, seed=0)) for s in SEVERITIES} for c in CORRUPTIONS}
    return measure_robustness(batch_of(images), copies, labels, *fitted)


def test_names(metrics):
    places = [f"{c}/{s}" for c in CORRUPTIONS for s in (*SEVERITIES, "mean")]
    expected = {f"{place}/{m}" for place in ("clean", "mean", *places) for m in MEASURES}
    assert set(metrics) == expected | {"relative_accuracy"}


def test_numbers_are_those_of_the_corrupted_images(metrics, fitted):
    images, labels = stripes(200, 2)
    probe, fused, threshold = fitted
    batch = batch_of(corrupt(images, "gaussian_noise", 5, seed=0))
    probabilities, scores = probe.probabilities(batch.features), fused.score(batch)
    assert {name: metrics[f"gaussian_noise/5/{name}"] for name in MEASURES} == {
        "accuracy": (probabilities.argmax(axis=1) == labels).mean(),
        "ece": reliability(probabilities, labels, CALIBRATION_BINS).expected_calibration_error,
        "ood_score": scores.mean(),
        "flagged": (scores > threshold).mean(),
    }


def test_means(metrics):
    for name in MEASURES:
        of_corruption = [
            np.mean([metrics[f"{corruption}/{severity}/{name}"] for severity in SEVERITIES])
            for corruption in CORRUPTIONS
        ]
        assert [metrics[f"{c}/mean/{name}"] for c in CORRUPTIONS] == pytest.approx(of_corruption)
        assert metrics[f"mean/{name}"] == pytest.approx(np.mean(of_corruption))
    assert metrics["relative_accuracy"] == metrics["mean/accuracy"] / metrics["clean/accuracy"] < 1


def test_what_erases_the_stripes_costs_accuracy_and_is_noticed(metrics):
    assert metrics["clean/accuracy"] > 0.9
    assert metrics["gaussian_blur/5/accuracy"] < metrics["gaussian_blur/1/accuracy"]
    assert metrics["gaussian_blur/5/ood_score"] > metrics["clean/ood_score"]
    assert metrics["gaussian_blur/5/flagged"] > metrics["clean/flagged"]


def test_no_accuracy_has_no_share_of_itself(fitted):
    batch = batch_of(stripes(20, 2)[0])
    wrong = 1 - fitted[0].logits(batch.features).argmax(axis=1)
    assert measure_robustness(batch, {"contrast": {1: batch}}, wrong, *fitted)["relative_accuracy"] == 0


@pytest.mark.parametrize("w_gen", [1, 0])
def test_what_is_embedded_is_what_is_measured(make_model, tmp_path, w_gen):
    """A model with and one without a likelihood."""
    model, cpu = make_model(patch_size=2, image_size=8, colours=5, w_gen=w_gen), torch.device("cpu")
    images, _ = stripes(20, 2)
    config = EmbedConfig(corruptions=("contrast", "gaussian_noise"), severities=(2, 5), corrupted_images=7)
    write_features(tmp_path, "test", *features_and_bits(model, images, cpu))
    embed_corrupted(model, images, config, 3, tmp_path / CORRUPTED, cpu)
    folders = Embedded.open(tmp_path), Embedded.open(tmp_path / CORRUPTED)
    rows, clean, copies = open_corrupted(*folders, config)
    np.testing.assert_array_equal(rows, evenly_spread(20, 7))
    np.testing.assert_array_equal(clean.features, np.load(tmp_path / "test.features.npy")[rows])
    assert {kind: list(of_kind) for kind, of_kind in copies.items()} == {"contrast": [2, 5], "gaussian_noise": [2, 5]}
    features, bits = features_and_bits(model, corrupt(images[rows], "gaussian_noise", 5, seed=3), cpu)
    np.testing.assert_array_equal(copies["gaussian_noise"][5].features, features)
    if w_gen:
        np.testing.assert_array_equal(clean.bits_per_dim, np.load(tmp_path / "test.bits_per_dim.npy")[rows])
        np.testing.assert_array_equal(copies["gaussian_noise"][5].bits_per_dim, bits)
    else:
        assert clean.bits_per_dim is copies["contrast"][2].bits_per_dim is None
    with pytest.raises(UserError, match=r"pixelate-2\.features\.npy: not found.*embed stage"):
        open_corrupted(*folders, EmbedConfig(corruptions=("pixelate",), severities=(2,)))


def test_no_corruption_writes_nothing(make_model, tmp_path):
    model = make_model(patch_size=2, image_size=8, colours=5)
    embed_corrupted(model, stripes(4, 0)[0], EmbedConfig(), 0, tmp_path / CORRUPTED, torch.device("cpu"))
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 10_000), st.integers(1, 200))
def test_rows_are_spread_evenly(total, count):
    rows = evenly_spread(total, count)
    assert len(rows) == min(total, count)
    assert rows[0] == 0
    assert rows[-1] < total
    assert set(np.diff(rows)) <= {total // len(rows), total // len(rows) + 1}


def test_the_table(metrics, tmp_path):
    write_csv(metrics, ("contrast", "pixelate"), (5, 1), tmp_path / "robustness.csv")
    with (tmp_path / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = ("clean/0", "contrast/1", "contrast/5", "pixelate/1", "pixelate/5")
    assert [f"{row['corruption']}/{row['severity']}" for row in rows] == list(places)
    for row, place in zip(rows, places, strict=True):
        for name in MEASURES:
            assert float(row[name]) == pytest.approx(metrics[f"{place.removesuffix('/0')}/{name}"], rel=1e-5)


def test_the_figure(metrics, tmp_path):
    robustness_by_severity(metrics, tuple(CORRUPTIONS), (1, 3, 5), tmp_path / "figure.png")
    image = Image.open(tmp_path / "figure.png")
    assert min(image.size) >= 300
    assert len(image.convert("RGB").getcolors(image.width * image.height)) > 10
