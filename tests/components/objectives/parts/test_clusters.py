import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from components.errors import UserError
from components.model.encode import encode_images
from components.objectives.parts import clusters
from components.objectives.parts.clusters import cluster, encoder_of

pytestmark = pytest.mark.trains

RNG = np.random.default_rng(0)
TRUE = np.arange(600) % 5
BLOBS = (8 * np.eye(5, 12)[TRUE] + RNG.normal(size=(600, 12))).astype(np.float32)


def same(rows: np.ndarray) -> np.ndarray:
    return rows


@pytest.mark.parametrize("pca_components", [None, 4])
def test_clusters_are_found(pca_components):
    found = cluster(BLOBS, same, 5, 0, pca_components)
    assert (found.dtype, found.shape) == (np.int64, (600,))
    assert adjusted_rand_score(TRUE, found) > 0.95


def test_the_length_of_a_row_does_not_matter():
    scaled = BLOBS * RNG.uniform(0.1, 10, (600, 1)).astype(np.float32)
    assert np.array_equal(cluster(scaled, same, 5, 0, None), cluster(BLOBS, same, 5, 0, None))


def test_whitening_lets_a_small_direction_count():
    """Two clusters along a direction of little variance, beside noise of a hundred times its size."""
    small = np.where(np.arange(600) % 2, 0.05, -0.05)
    rows = np.stack([small, RNG.normal(0, 5, 600)], 1).astype(np.float32)
    assert adjusted_rand_score(small > 0, cluster(rows, same, 4, 0, 2)) > 0.3
    assert adjusted_rand_score(small > 0, cluster(rows, same, 4, 0, None)) < 0.1


def test_the_seed_decides_and_nothing_else():
    noise = RNG.normal(size=(600, 12)).astype(np.float32)
    np.random.seed(1)
    first = cluster(noise, same, 20, 3, 8)
    np.random.seed(2)
    assert np.array_equal(cluster(noise, same, 20, 3, 8), first)
    assert not np.array_equal(cluster(noise, same, 20, 4, 8), first)


def test_a_large_set_is_encoded_in_blocks_and_fitted_to_a_part(monkeypatch):
    monkeypatch.setattr(clusters, "FITTED", 20)
    monkeypatch.setattr(clusters, "BLOCK", 64)
    sizes: list[int] = []

    def encode(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return rows

    found = cluster(BLOBS, encode, 5, 0, 4)
    assert adjusted_rand_score(TRUE, found) > 0.95
    assert max(sizes) == 64
    assert sum(sizes) == 100 + 600


def test_fewer_distinct_rows_than_clusters_leave_some_empty(recwarn):
    found = cluster(np.ones((30, 4), np.float32), same, 5, 0, None)
    assert set(found) == {found[0]}
    assert not recwarn


@pytest.mark.parametrize("fitted", [20, 256], ids=["a part", "all"])
def test_rows_that_are_not_finite_are_told(monkeypatch, fitted):
    """Be they among those that k-means is fitted to or not."""
    monkeypatch.setattr(clusters, "FITTED", fitted)
    for value in (np.nan, np.inf):
        rows = BLOBS.copy()
        rows[-1, 0] = value
        with pytest.raises(UserError, match=r"not finite: training has diverged\. Lower training\.learning_rate"):
            cluster(rows, same, 5, 0, 4)


def test_the_encoders_features_are_those_of_the_images(make_model):
    import torch

    model = make_model(2, 4)
    images = RNG.integers(0, 256, (10, 4, 4, 1), dtype=np.uint8)
    features = encoder_of(model.train())(images)
    expected, _ = encode_images(model.eval(), images, torch.device("cpu"))
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-5, atol=1e-6)
