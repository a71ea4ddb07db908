from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from components.evaluation.calibration import reliability
from components.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from components.evaluation.detectors import Batch, InDistribution
from components.evaluation.embed import features_and_bits
from components.evaluation.figures_robustness import accuracy_by_severity
from components.evaluation.fused import Fused
from components.evaluation.probes import Labelled, fit_linear
from components.evaluation.robustness import MEASURES, measure_robustness


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


@pytest.fixture(scope="module")
def metrics():
    return measure_robustness(pixels, *stripes(200, 2), *fit(pixels), seed=0)


def test_names(metrics):
    places = [f"{c}/{s}" for c in CORRUPTIONS for s in (*SEVERITIES, "mean")]
    assert set(metrics) == {f"{place}/{m}" for place in ("clean", "mean", *places) for m in MEASURES}


def test_numbers_are_those_of_the_corrupted_images():
    images, labels = stripes(200, 2)
    probe, fused = fit(pixels)
    found = measure_robustness(pixels, images, labels, probe, fused, seed=3, bins=4, corruptions=("gaussian_noise",))
    changed = corrupt(images, "gaussian_noise", 5, seed=3)
    features, bits = pixels(changed)
    probabilities = probe.probabilities(features)
    error = reliability(probabilities, labels, 4).expected_calibration_error
    assert error != reliability(probabilities, labels, 15).expected_calibration_error
    assert {name: found[f"gaussian_noise/5/{name}"] for name in MEASURES} == {
        "accuracy": (probabilities.argmax(axis=1) == labels).mean(),
        "ece": error,
        "ood_score": fused.score(Batch(features, changed, bits)).mean(),
    }


def test_means(metrics):
    for name in MEASURES:
        of_corruption = [
            np.mean([metrics[f"{corruption}/{severity}/{name}"] for severity in SEVERITIES])
            for corruption in CORRUPTIONS
        ]
        assert [metrics[f"{c}/mean/{name}"] for c in CORRUPTIONS] == pytest.approx(of_corruption)
        assert metrics[f"mean/{name}"] == pytest.approx(np.mean(of_corruption))


def test_what_erases_the_stripes_costs_accuracy_and_is_noticed(metrics):
    assert metrics["clean/accuracy"] > 0.9
    assert metrics["gaussian_blur/5/accuracy"] < metrics["gaussian_blur/1/accuracy"]
    assert metrics["gaussian_blur/5/ood_score"] > metrics["clean/ood_score"]


@pytest.mark.parametrize("w_gen", [1, 0])
def test_a_model_with_and_without_a_likelihood(make_model, w_gen):
    model = make_model(patch_size=2, image_size=8, colours=5, w_gen=w_gen)
    encode = partial(features_and_bits, model, device=torch.device("cpu"))
    found = measure_robustness(encode, *stripes(20, 2), *fit(encode), seed=0, corruptions=("contrast",))
    assert [key for key in found if key.endswith("/mean/accuracy")] == ["contrast/mean/accuracy"]
    assert np.isfinite(list(found.values())).all()


def test_the_figure(metrics, tmp_path):
    accuracy_by_severity({"hybrid": metrics, "contrastive": metrics}, tmp_path / "figure.png")
    image = Image.open(tmp_path / "figure.png")
    assert min(image.size) >= 300
    assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10
