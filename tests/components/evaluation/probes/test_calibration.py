import numpy as np
import pytest
import torch
from scipy.special import softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from components.evaluation.probes.calibration import fit_temperature, negative_log_likelihoods, reliability


def sampled(temperature: float, n: int = 4000, classes: int = 5, seed: int = 0):
    """Logits whose true temperature is known: labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 3
    cumulative = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, (rng.random((n, 1)) > cumulative[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("bins", [2, 10, 15])
@pytest.mark.parametrize("classes", [2, 5])
def test_calibration_error_is_torchmetrics(bins, classes):
    logits, labels = sampled(2.0, n=500, classes=classes)
    probabilities = softmax(logits, axis=1)
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=classes, n_bins=bins, norm="l1"
    )
    assert reliability(probabilities, labels, bins).expected_calibration_error == pytest.approx(
        float(expected), abs=1e-5
    )


def test_reliability_by_hand():
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [1.0, 0.0]])
    bins = reliability(probabilities, np.array([0, 0, 0, 0]), 4)
    assert bins.counts.tolist() == [0, 1, 0, 3]  # 0.5 belongs to (0.25, 0.5], certainty to the last bin
    np.testing.assert_allclose(bins.accuracy, [0, 1, 0, 2 / 3])
    np.testing.assert_allclose(bins.confidence, [0, 0.5, 0, 0.9])
    assert bins.expected_calibration_error == pytest.approx((0.5 + 3 * (0.9 - 2 / 3)) / 4)


@pytest.mark.trains
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_true_temperature_is_found_and_calibrates(temperature):
    logits, labels = sampled(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    nll = negative_log_likelihoods(logits / found, labels).mean()
    for other in (found * 0.97, found * 1.03, 1.0):
        assert nll <= negative_log_likelihoods(logits / other, labels).mean() + 1e-9
    fresh_logits, fresh_labels = sampled(temperature, seed=1)
    after = reliability(softmax(fresh_logits / found, axis=1), fresh_labels, 15).expected_calibration_error
    assert after < 0.03


def test_perfectly_separated_validation_data_gives_a_finite_temperature():
    logits = 10 * np.eye(3)
    temperature = fit_temperature(logits, np.arange(3))
    assert 0.01 <= temperature < 1


def test_negative_log_likelihood_is_cross_entropy():
    logits, labels = sampled(1.0, n=50)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(negative_log_likelihoods(logits, labels), expected.numpy(), rtol=1e-9)
