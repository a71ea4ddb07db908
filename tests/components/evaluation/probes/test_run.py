import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.errors import UserError
from components.evaluation.config import ProbeConfig
from components.evaluation.probes import run as probes
from components.evaluation.probes.calibration import negative_log_likelihoods
from components.evaluation.probes.linear_probe import Labelled, LinearProbe
from components.evaluation.probes.run import few_label_probes, fit_linear, knn_probe, run_probes

pytestmark = pytest.mark.trains

QUICK = ProbeConfig(l2=(0.001, 0.1), k=(1, 5), shots=(1, 10), draws=3)


@pytest.fixture(scope="module")
def digits():
    """Raw pixels of scikit-learn's digits: train, val, test."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.split(order, [800, 1100])
    return tuple(Labelled(pixels[part].astype(np.float32), labels[part].astype(np.int64)) for part in parts)


def blobs(n: int, classes: int, distance: float, seed: int, width: int = 6) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = rng.normal(size=(n, width))
    features[np.arange(n), labels] += distance
    return Labelled(features.astype(np.float32), labels)


def test_digits(digits):
    result = run_probes(*digits, QUICK, seed=0)
    metrics = result.metrics
    assert metrics["linear_accuracy"] > 0.93
    assert metrics["knn_accuracy"] > 0.95
    assert metrics["few_label_1_accuracy"] < metrics["few_label_10_accuracy"] < metrics["linear_accuracy"]
    assert metrics["few_label_1_std"] > 0
    n = len(digits[2].labels)
    assert metrics["linear_accuracy_se"] == pytest.approx(
        np.sqrt(metrics["linear_accuracy"] * (1 - metrics["linear_accuracy"]) / n)
    )
    assert result.confusion.sum() == n
    assert result.confusion.trace() / n == pytest.approx(metrics["linear_accuracy"])
    np.testing.assert_array_equal(result.confusion.sum(axis=1), np.bincount(digits[2].labels))
    json.dumps([metrics, result.constants], allow_nan=False)
    again = run_probes(*digits, QUICK, seed=0)
    assert again.metrics == metrics


def test_separable_classes_are_told_apart_and_noise_is_not():
    config = ProbeConfig(shots=(5,), draws=2)
    easy = run_probes(*(blobs(300, 3, 12, seed) for seed in range(3)), config, seed=0).metrics
    assert easy["linear_accuracy"] == easy["knn_accuracy"] == 1
    assert easy["few_label_5_accuracy"] > 0.99
    noise = run_probes(*(blobs(600, 3, 0, seed) for seed in range(3)), config, seed=0).metrics
    for name in ("linear_accuracy", "knn_accuracy", "few_label_5_accuracy"):
        assert abs(noise[name] - 1 / 3) < 0.08
    assert noise["linear_nll_calibrated"] < np.log(3) + 0.03  # no confidence where nothing can be known


@pytest.mark.parametrize("classes", [2, 5])
def test_folded_weights_are_scikit_learns_pipeline(classes):
    train, val, test = (blobs(200, classes, 1.5, seed) for seed in range(3))
    train.features[:] = train.features * [1, 10, 100, 1, 1, 0.01] + [0, 5, -300, 0, 0, 1]
    probe = fit_linear(train, val, (0.01,))
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.01 * 200), max_iter=1000)).fit(*train)
    assert probe.weight.shape == (classes, 6)
    uncalibrated = LinearProbe(probe.weight, probe.bias, temperature=1.0, l2=0.01)
    np.testing.assert_allclose(
        uncalibrated.probabilities(test.features), reference.predict_proba(test.features), atol=2e-3
    )


def test_a_large_split_is_standardised_in_blocks(digits, monkeypatch):
    train, val, _ = digits
    whole = fit_linear(train, val, QUICK.l2)
    monkeypatch.setattr(probes, "ROWS_AT_ONCE", 300)
    parts = fit_linear(train, val, QUICK.l2)
    np.testing.assert_allclose(parts.weight, whole.weight, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(parts.logits(val.features), whole.logits(val.features), rtol=1e-3, atol=1e-2)


def test_constant_features_do_no_harm():
    train, val, _ = (blobs(90, 3, 8, seed) for seed in range(3))
    with_constant = [Labelled(np.hstack([x, np.full((90, 1), 7, np.float32)]), y) for x, y in (train, val)]
    probe = fit_linear(*with_constant, (0.01,))
    np.testing.assert_allclose(
        probe.logits(with_constant[1].features), fit_linear(train, val, (0.01,)).logits(val.features), atol=1e-3
    )


def test_penalty_and_temperature_are_chosen_on_validation(digits):
    train, val, _ = digits
    penalties = (1e-4, 1e-2, 100.0)
    chosen = fit_linear(train, val, penalties)
    alone = [fit_linear(train, val, (l2,)) for l2 in penalties]

    def accuracy(probe):
        return (probe.logits(val.features).argmax(axis=1) == val.labels).mean()

    assert accuracy(chosen) == max(accuracy(probe) for probe in alone)
    assert chosen.l2 != 100.0
    logits = chosen.logits(val.features)
    calibrated = negative_log_likelihoods(logits / chosen.temperature, val.labels).mean()
    assert calibrated < negative_log_likelihoods(logits, val.labels).mean()


def test_knn_agrees_with_scikit_learns_weighted_vote(digits):
    train, val, test = digits
    accuracy, k = knn_probe(train, val, test, (1, 5, 20))
    reference = {
        candidate: KNeighborsClassifier(candidate, metric="cosine", weights=lambda d: 2 - d).fit(*train)
        for candidate in (1, 5, 20)
    }
    on_val = {candidate: model.score(*val) for candidate, model in reference.items()}
    assert on_val[k] == max(on_val.values())
    assert accuracy == pytest.approx(reference[k].score(*test), abs=2.5 / len(test.labels))  # of ties two at most


def test_k_beyond_the_training_split():
    split = blobs(10, 2, 5, 0)
    assert knn_probe(split, split, split, (3, 11))[1] == 3
    with pytest.raises(UserError, match=r"probe\.k.*exceed the 10 training images"):
        knn_probe(split, split, split, (11, 20))


def test_few_label_draws_are_spread_and_seeded():
    train, test = blobs(300, 3, 2, 0), blobs(300, 3, 2, 1)
    one = few_label_probes(train, test, (1, 20), 6, seed=0)
    np.testing.assert_array_equal(one[1], few_label_probes(train, test, (1,), 6, seed=0)[1])
    assert not np.array_equal(one[1], few_label_probes(train, test, (1,), 6, seed=1)[1])
    assert one[1].std() > one[20].std()  # more labels, steadier result
    # a class with fewer images than asked for gives all it has: every draw is the same
    small = blobs(9, 3, 2, 0)
    assert len(set(few_label_probes(small, test, (5,), 3, seed=0)[5])) == 1


def test_one_draw_has_no_spread():
    splits = [blobs(60, 3, 2, seed) for seed in range(3)]
    metrics = run_probes(*splits, ProbeConfig(l2=(0.1,), k=(1,), shots=(2,), draws=1), seed=0).metrics
    assert metrics["few_label_2_std"] == 0


def test_save_and_load(tmp_path):
    train, val, test = (blobs(60, 3, 3, seed) for seed in range(3))
    probe = fit_linear(train, val, (0.01, 0.1))
    probe.save(tmp_path / "probe.npz")
    loaded = LinearProbe.load(tmp_path / "probe.npz")
    np.testing.assert_array_equal(loaded.probabilities(test.features), probe.probabilities(test.features))
    assert (loaded.temperature, loaded.l2) == (probe.temperature, probe.l2)
    with pytest.raises(UserError, match="probe stage"):
        LinearProbe.load(tmp_path / "other.npz")


def test_bad_labels_are_told():
    good = blobs(30, 3, 3, 0)
    gap = Labelled(good.features, np.where(good.labels == 1, 0, good.labels))
    with pytest.raises(UserError, match=r"split 'train'.*\[0, 2\].*without a gap"):
        run_probes(gap, good, good, QUICK, seed=0)
    with pytest.raises(UserError, match=r"split 'test'.*between 0 and 2"):
        run_probes(good, good, Labelled(good.features, good.labels + 1), QUICK, seed=0)
    with pytest.raises(UserError, match="split 'val': 29 features for 30 labels"):
        run_probes(good, Labelled(good.features[1:], good.labels), good, QUICK, seed=0)
