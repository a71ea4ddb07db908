import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from components.evaluation.probes import neighbours
from components.evaluation.probes.neighbours import Neighbours, unit_length


@pytest.mark.parametrize("k", [1, 10, 70])
def test_blocks_give_what_one_search_gives(k, monkeypatch):
    rng = np.random.default_rng(0)
    features, queries = rng.normal(size=(1000, 16)).astype(np.float32), rng.normal(size=(130, 16)).astype(np.float32)
    expected, _ = NearestNeighbors(algorithm="brute").fit(unit_length(features)).kneighbors(unit_length(queries), k)
    exact = cdist(unit_length(queries), unit_length(features))
    for rows in (64, 999, 4096):  # blocks of fewer than k rows, a rest of one, one block
        monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", rows)
        distances, indices = Neighbours(features).nearest(queries, k)
        np.testing.assert_allclose(distances, expected, rtol=1e-5)
        # of two that are equally far up to rounding either may come first
        np.testing.assert_allclose(np.take_along_axis(exact, indices, 1), expected, rtol=1e-5)
        assert all(len(set(row)) == k for row in indices)


def test_equally_near_neighbours_of_all_blocks_are_found(monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", 2)
    features = np.array([[1, 0], [0, 1], [2, 0], [-1, 0], [3, 0]], np.float32)
    distances, indices = Neighbours(features).nearest(np.array([[5, 0]], np.float32), 3)
    np.testing.assert_array_equal(distances, [[0, 0, 0]])
    assert set(indices[0]) == {0, 2, 4}


def test_memory_does_not_grow_with_the_features(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", 1000)
    rng = np.random.default_rng(0)

    def peak(count: int) -> int:
        np.save(tmp_path / "features.npy", rng.normal(size=(count, 32)).astype(np.float32))
        features = np.load(tmp_path / "features.npy", mmap_mode="r")
        queries = rng.normal(size=(100, 32)).astype(np.float32)
        tracemalloc.start()
        Neighbours(features).nearest(queries, 5)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1000)  # imports
    few, many = peak(2000), peak(40_000)
    assert many < 1.2 * few
    assert many < 40_000 * 32 * 4 / 10  # a tenth of the features themselves
