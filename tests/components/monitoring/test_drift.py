import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, chi2_contingency, ks_2samp

from components.export.reference import EMBEDDINGS, Reference
from components.monitoring.config import DriftThresholds
from components.monitoring.drift import (
    class_association,
    drift_tests,
    flagged_share,
    mean_discrepancy,
    score_distance,
)
from components.monitoring.scoring import Scored

ALPHA = 0.05
ROUNDS = 400
REASONABLE = 0.09  # more than this of 400 rounds has a chance of 5e-4 where that of each is ALPHA


def normal(seed: int, count: int, shift: float = 0.0, dimensions: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, dimensions))


def calibrated(rng: np.random.Generator, count: int, rate: float) -> tuple[float, np.ndarray]:
    """A threshold set on `count` fresh scores as the pipeline sets it, and what it flags of them."""
    from components.evaluation.ood.run import threshold_at

    scores = rng.normal(size=count)
    threshold = threshold_at(scores, rate)
    return threshold, scores > threshold


@pytest.mark.parametrize(("calibration", "batch"), [(60, 400), (150, 40), (2000, 500)])
def test_the_share_flagged_rarely_alarms_without_drift_however_small_the_calibration_set(calibration, batch):
    rng = np.random.default_rng(0)
    alarms, binomial = 0, 0
    for _ in range(ROUNDS):
        threshold, reference = calibrated(rng, calibration, 0.05)
        flagged = rng.normal(size=batch) > threshold
        _, p = flagged_share(flagged, reference, 0.05, ALPHA)
        assert p is not None
        alarms += p < ALPHA
        binomial += binomtest(int(flagged.sum()), batch, 0.05, "greater").pvalue < ALPHA
    assert alarms / ROUNDS < REASONABLE
    if calibration == 60:  # why it is not the binomial test
        assert binomial / ROUNDS > 2 * REASONABLE


def test_the_share_flagged_is_the_binomial_test_where_the_calibration_set_is_large():
    reference = np.arange(2_000_000) < 100_000  # 5 %
    for flagged in (3, 10, 20):
        _, p = flagged_share(np.arange(100) < flagged, reference, 0.05, ALPHA)
        assert p == pytest.approx(binomtest(flagged, 100, 0.05, "greater").pvalue, rel=0.02)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 300), st.data())
def test_more_images_flagged_are_never_less_significant(batch, calibration, data):
    reference = np.arange(calibration) < data.draw(st.integers(0, calibration))
    found = [flagged_share(np.arange(batch) < k, reference, 0.05, 1.0)[1] for k in range(batch + 1)]
    p_values = [p for p in found if p is not None]
    assert np.diff(p_values) == pytest.approx(np.minimum(np.diff(p_values), 0), abs=1e-12)
    assert all(0 <= p <= 1 + 1e-9 for p in p_values)


def test_too_few_images_can_tell_nothing_of_the_share_flagged():
    reference = np.arange(200) < 10
    assert flagged_share(np.ones(1, dtype=bool), reference, 0.05, 0.003) == (0.95, None)
    _, p = flagged_share(np.ones(4, dtype=bool), reference, 0.05, 0.003)
    assert p is not None
    assert p < 0.003


def test_score_distance_is_scipys():
    x, y = normal(0, 80)[:, 0], normal(1, 120, 0.3)[:, 0]
    expected = ks_2samp(x, y)
    assert score_distance(x, y) == (expected.statistic, expected.pvalue)
    assert score_distance(x, x) == (0, 1)


def test_mean_discrepancy_is_that_of_the_naive_sums():
    x, y = normal(0, 9, 0.8), normal(1, 13)
    distances = cdist(np.concatenate([x, y]), np.concatenate([x, y]), "sqeuclidean")
    kernel = np.exp(-distances / (2 * np.median(distances[np.triu_indices(22, 1)])))
    within_x = sum(kernel[i, j] for i in range(9) for j in range(9) if i != j) / (9 * 8)
    within_y = sum(kernel[i, j] for i in range(9, 22) for j in range(9, 22) if i != j) / (13 * 12)
    across = sum(kernel[i, j] for i in range(9) for j in range(9, 22)) / (9 * 13)
    found, _ = mean_discrepancy(x, y, 10, np.random.default_rng(0))
    assert found == pytest.approx((within_x + within_y - 2 * across) ** 0.5)


def test_mean_discrepancy_rarely_alarms_without_drift():
    p_values = [
        mean_discrepancy(normal(2 * i, 15), normal(2 * i + 1, 40), 99, np.random.default_rng(i))[1]
        for i in range(ROUNDS)
    ]
    assert 0.01 < np.mean([p is not None and p <= ALPHA for p in p_values]) < REASONABLE
    assert ks_2samp(p_values, np.linspace(0, 1, 1000)).pvalue > 1e-3  # uniform


@pytest.mark.parametrize(
    "change", [lambda x: x + 0.4, lambda x: 1.5 * x, lambda x: x * np.sign(x[:, :1])], ids=["mean", "spread", "shape"]
)
def test_mean_discrepancy_finds_a_shift(change):
    """In a way that no single dimension shows, too: the last one only ties the signs of the dimensions together."""
    x, y = change(normal(0, 200)), normal(1, 200)
    assert mean_discrepancy(x, y, 999, np.random.default_rng(0))[1] == pytest.approx(0.001)


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.01, 1000), st.floats(-100, 100))
def test_mean_discrepancy_knows_neither_unit_nor_origin(m, n, unit, origin):
    x, y = normal(0, m, 0.5), normal(1, n)
    one, p_one = mean_discrepancy(x, y, 50, np.random.default_rng(0))
    other, p_other = mean_discrepancy(unit * x + origin, unit * y + origin, 50, np.random.default_rng(0))
    assert other == pytest.approx(one, abs=1e-4)
    assert p_other == pytest.approx(p_one, abs=0.05)


def test_mean_discrepancy_of_images_that_are_all_the_same():
    same = np.ones((5, 3))
    assert mean_discrepancy(same, same, 99, np.random.default_rng(0)) == (0, 1)
    apart, p = mean_discrepancy(same, 2 * np.ones((200, 3)), 999, np.random.default_rng(0))
    assert apart == pytest.approx((2 - 2 * np.exp(-0.5)) ** 0.5)  # d = σ, the only distance above 0
    assert p == pytest.approx(0.001)
    assert mean_discrepancy(same[:1], same, 99, np.random.default_rng(0)) == (0, None)


def test_class_association_is_that_of_the_table():
    predicted, reference = np.repeat([0, 2], [30, 10]), np.repeat([0, 1, 2], [20, 20, 20])
    value, p = class_association(predicted, reference, 4)  # nothing is of class 3
    expected = chi2_contingency([[30, 0, 10], [20, 20, 20]])
    assert p == pytest.approx(expected.pvalue)
    assert value == pytest.approx((expected.statistic / 100) ** 0.5)
    assert class_association(np.zeros(9, int), np.zeros(5, int), 3) == (0, 1)


def a_batch(seed: int, count: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """What a model says of images whose embedding's every dimension is shifted; the score is one of them."""
    embedding = normal(seed, count, shift).astype(np.float32)
    score = embedding[:, 0]
    return {
        "embedding": embedding,
        "ood_score": score,
        "is_ood": score > 1.645,
        "predicted": (embedding[:, 1] > 0).astype(int),
        "mean": np.zeros((count, 1)),
        "std": np.zeros((count, 1)),
    }


REFERENCE = Reference(np.array(["a", "b"]), np.array(False), np.array(0.05), np.array(1.645), **a_batch(0, 600))


def scored(seed: int, count: int, shift: float = 0.0) -> Scored:
    answers = a_batch(seed, count, shift)
    answers["embedding"] = answers["embedding"][:EMBEDDINGS]
    return Scored([""] * count, [""] * count, **answers, unusable=[])


def verdicts(batch: Scored, thresholds: DriftThresholds) -> dict[str, str]:
    return {name: test.verdict for name, test in drift_tests(batch, REFERENCE, thresholds).items()}


def test_without_drift_few_batches_are_reported():
    strict = DriftThresholds(alpha=ALPHA, flagged_excess=0, score_distance=0, embedding_distance=0)
    alarms = [set(verdicts(scored(seed, 40), strict).values()) & {"drift"} for seed in range(1, 61)]
    assert 0 < sum(map(bool, alarms)) <= 9  # more has a chance of 7e-4 where that of each is ALPHA


def test_a_shift_is_reported_by_every_test():
    found = verdicts(scored(1, 100, 1.5), DriftThresholds())
    assert found == {"flagged": "drift", "ood_score": "drift", "embedding": "drift", "classes": "for information"}


def test_the_same_batch_gives_the_same_numbers():
    batch = scored(1, 50, 0.3)
    assert drift_tests(batch, REFERENCE, DriftThresholds()) == drift_tests(batch, REFERENCE, DriftThresholds())


def test_a_significant_difference_that_is_small_is_no_drift():
    many = scored(1, 20_000, 0.12)
    tests = drift_tests(many, REFERENCE, DriftThresholds())
    assert tests["ood_score"].p_value is not None
    assert tests["ood_score"].p_value < tests["ood_score"].level == pytest.approx(0.01 / 3)
    assert tests["ood_score"].verdict == "no drift"
    assert verdicts(many, DriftThresholds(score_distance=0.02))["ood_score"] == "drift"


def test_a_large_difference_of_few_images_is_no_drift():
    few = scored(3, 20, 0.6)
    tests = drift_tests(few, REFERENCE, DriftThresholds())
    assert tests["ood_score"].effect > 0.15
    assert tests["ood_score"].verdict == "no drift"


def test_too_few_images_to_tell():
    found = verdicts(scored(1, 19, 3), DriftThresholds())
    assert found.pop("flagged") == "drift"  # by far most of 19 are flagged: that is enough for the exact test
    assert set(found.values()) == {"too few images to tell"}
    assert set(verdicts(scored(1, 1, 3), DriftThresholds()).values()) == {"too few images to tell"}
    small = dataclasses.replace(REFERENCE, **a_batch(0, 19))
    assert drift_tests(scored(1, 100, 3), small, DriftThresholds())["ood_score"].p_value is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"alpha": 0.0001}, "alpha must lie between 0.001 and 0.2"),
        ({"flagged_excess": 1.0}, "flagged_excess"),
        ({"score_distance": -0.1}, "score_distance"),
        ({"embedding_distance": 1.5}, "embedding_distance"),
        ({"min_images": 1}, "min_images must be at least 2, not 1"),
    ],
)
def test_impossible_thresholds_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        DriftThresholds(**wrong)
