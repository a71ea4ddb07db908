import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from components.data.palette import fit_palette


@given(
    colours=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20, unique=True),
    seed=st.integers(0, 99),
)
def test_few_colours_are_kept_exactly(colours: list[tuple[int, int, int]], seed: int) -> None:
    choice = np.random.default_rng(seed).integers(0, len(colours), (2, 4, 4))
    choice.ravel()[: len(colours)] = np.arange(len(colours))
    images = np.array(colours, dtype=np.uint8)[choice]
    np.testing.assert_array_equal(fit_palette(images, 20, seed), np.unique(images.reshape(-1, 3), axis=0))


def test_grey_levels_are_kept_exactly() -> None:
    images = np.random.default_rng(0).choice([0, 16, 255], (5, 8, 8, 1)).astype(np.uint8)
    np.testing.assert_array_equal(fit_palette(images, 512, 0), [[0], [16], [255]])


@pytest.mark.trains
@pytest.mark.parametrize("channels", [1, 3])
def test_many_colours_are_clustered_about_as_well_as_full_k_means_does(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = (rng.normal(128, 50, (20, 16, 16, channels))).clip(0, 255).astype(np.uint8)
    palette = fit_palette(images, 16, 0)
    assert palette.dtype == np.uint8
    assert 14 <= len(palette) <= 16  # centres that round to the same colour are one
    np.testing.assert_array_equal(palette, np.unique(palette, axis=0))
    np.testing.assert_array_equal(palette, fit_palette(images, 16, 0))

    def error(centres: np.ndarray) -> float:
        pixels = images.reshape(-1, 1, channels).astype(float)
        return float(((pixels - centres) ** 2).sum(-1).min(1).mean())

    reference = KMeans(16, n_init=3, random_state=0).fit(images.reshape(-1, channels)).cluster_centers_
    assert error(palette.astype(float)) < 1.15 * error(reference)
