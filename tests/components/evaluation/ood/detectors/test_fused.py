import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import UserError
from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.detectors.fused import Fused, combine
from components.evaluation.ood.detectors.mahalanobis import Mahalanobis
from components.evaluation.ood.metrics import auroc
from components.evaluation.ood.run import threshold_at
from components.evaluation.probes.linear_probe import Labelled, LinearProbe

WIDTH = 6
PROBE = LinearProbe(np.zeros((2, WIDTH)), np.zeros(2), temperature=1.0, l2=0.1)


def draw(n: int, seed: int, shift: float = 0.0, bits: float = 3.0, likelihood: bool = True) -> Batch:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, WIDTH)) + shift
    features[:, 0] += 6 * (np.arange(n) % 2)
    return Batch(features, np.zeros((n, 1, 1, 1), np.uint8), rng.normal(bits, 0.2, n) if likelihood else None)


def fit(n: int = 2000, seed: int = 0, likelihood: bool = True) -> tuple[Fused, Batch]:
    val = draw(n, seed + 1, likelihood=likelihood)
    train = Labelled(draw(n, seed).features, np.arange(n) % 2)
    return Fused.fit(InDistribution(train, val, PROBE), k=1), val


def test_fresh_data_is_flagged_at_the_configured_rate():
    rates = []
    for seed in range(0, 60, 3):
        fused, val = fit(500, seed)
        threshold = threshold_at(fused.score(val), 0.05)
        rates.append((fused.score(draw(2000, seed + 2)) > threshold).mean())
    assert np.mean(rates) == pytest.approx(0.05, abs=0.007)


@pytest.mark.parametrize(
    "odd", [{"shift": 3.0}, {"bits": 4.5}, {"bits": 1.5}], ids=["other features", "too unlikely", "too likely"]
)
def test_every_oddity_raises_the_score(odd):
    fused, _ = fit()
    assert auroc(fused.score(draw(1000, 5)), fused.score(draw(1000, 6, **odd))) > 0.95


def test_an_overfitted_training_split_does_not_flood_validation_with_alarms():
    """The encoder knows its training images: their features lie much closer to the class means."""
    val, fresh = draw(1000, 1), draw(1000, 2)
    train = draw(1000, 0).features
    means = np.array([[0.0] * WIDTH, [6.0] + [0.0] * (WIDTH - 1)])[np.arange(1000) % 2]
    tight = Labelled(means + (train - means) * 0.1, np.arange(1000) % 2)
    fused = Fused.fit(InDistribution(tight, val, PROBE), k=1)
    assert (fused.score(fresh) > threshold_at(fused.score(val), 0.05)).mean() == pytest.approx(0.05, abs=0.025)
    shifted = fused.score(draw(1000, 3, shift=3.0))
    assert auroc(fused.score(fresh), shifted) > 0.95


def test_without_likelihood_it_ranks_as_mahalanobis():
    fused, val = fit(likelihood=False)
    train = Labelled(draw(2000, 0).features, np.arange(2000) % 2)
    mahalanobis = Mahalanobis.fit(InDistribution(train, val, PROBE), k=1)
    batch = draw(300, 9, shift=1.0)
    np.testing.assert_array_equal(np.argsort(fused.score(batch)), np.argsort(mahalanobis.score(batch)))
    assert fused.locations.shape == fused.scales.shape == (1,)


def test_a_likelihood_it_was_fitted_with_must_be_there():
    fused, _ = fit()
    with pytest.raises(ValueError, match="fitted with a likelihood"):
        fused.score(draw(5, 0, likelihood=False))


def test_the_public_arrays_are_enough_to_rebuild_the_score():
    fused, _ = fit()
    batch = draw(20, 7, shift=0.5)
    for x, bits, score in zip(batch.features, batch.bits_per_dim, fused.score(batch), strict=True):
        distance = min(np.linalg.norm((x - fused.center) @ fused.whitening - mean) for mean in fused.means)
        z = (np.array([distance, bits]) - fused.locations) / fused.scales
        assert score == pytest.approx(z[0] + abs(z[1]), rel=1e-6)


@pytest.mark.parametrize("likelihood", [True, False])
def test_save_and_load(tmp_path, likelihood):
    fused, _ = fit(likelihood=likelihood)
    fused.save(tmp_path / "fused.npz")
    loaded = Fused.load(tmp_path / "fused.npz")
    batch = draw(50, 3, likelihood=likelihood)
    np.testing.assert_array_equal(loaded.score(batch), fused.score(batch))
    with pytest.raises(UserError, match="ood stage"):
        Fused.load(tmp_path / "other.npz")


def test_identical_likelihoods_give_finite_scores():
    val = Batch(draw(50, 1).features, np.zeros((50, 1, 1, 1), np.uint8), np.full(50, 2.5))
    train = Labelled(draw(50, 0).features, np.arange(50) % 2)
    scores = Fused.fit(InDistribution(train, val, PROBE), k=1).score(val)
    assert np.isfinite(scores).all()


floats = st.floats(-50, 500, allow_nan=False)


@given(floats, floats, st.floats(0.01, 10))
def test_combination_rises_with_distance_and_with_an_unusual_likelihood_either_way(distance, likelihood, more):
    away = likelihood + np.copysign(more, likelihood)
    z = np.array([[distance, likelihood], [distance + more, likelihood], [distance, away], [distance, -likelihood]])
    before, farther, stranger, mirrored = combine(z)
    assert farther > before
    assert stranger > before
    assert mirrored == before
