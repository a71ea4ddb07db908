import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images

from components.evaluation.robustness import corruptions
from components.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def patches(size: int, channels: int, count: int = 30) -> np.ndarray:
    """Tiles of a photograph, uint8 (N, size, size, channels)."""
    photo = load_sample_images().images[0]
    places = np.random.default_rng(0).integers(0, 427 - size, (count, 2))
    return np.stack([photo[y : y + size, x : x + size, :channels] for y, x in places])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 13, 32])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_image_is_an_image_of_the_same_kind(name, size, channels):
    images = patches(size, channels)
    before = images.copy()
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity, seed=0)
        assert corrupted.shape == images.shape
        assert corrupted.dtype == np.uint8
        assert (corrupted != images).any()
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_is_farther_from_the_original(name, channels):
    images = patches(32, channels)
    distances = [np.abs(corrupt(images, name, s, seed=0).astype(int) - images).mean() for s in SEVERITIES]
    assert distances[0] > 0
    assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "pixelate"])
def test_severities_are_in_order_at_other_sizes(name, size):
    images = patches(size, 3)
    distances = [np.abs(corrupt(images, name, s, seed=0).astype(int) - images).mean() for s in SEVERITIES]
    assert (np.diff(distances) > 0).all(), distances


def test_pixels_of_small_images_are_no_smaller_with_severity():
    images = patches(8, 3)
    blocks = [len(np.unique(corrupt(images, "pixelate", s, seed=0)[0, 0], axis=0)) for s in SEVERITIES]
    assert blocks == [7, 7, 6, 6, 5]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_decides_and_nothing_else(name, monkeypatch):
    images = patches(16, 3)
    expected = corrupt(images, name, 3, seed=5)
    np.testing.assert_array_equal(corrupt(images, name, 3, seed=5), expected)
    np.testing.assert_array_equal(corrupt(images[:7], name, 3, seed=5), expected[:7])
    monkeypatch.setattr(corruptions, "ROWS_AT_ONCE", 4)
    np.testing.assert_array_equal(corrupt(images, name, 3, seed=5), expected)
    assert (corrupt(images, name, 3, seed=6) != expected).any() == (name == "gaussian_noise")


def test_noise_has_the_strength_of_the_paper():
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    for severity, deviation in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        noisy = corrupt(grey, "gaussian_noise", severity, seed=0) / 255
        assert noisy.std() == pytest.approx(deviation, rel=0.01)
        assert np.corrcoef(noisy[0].ravel(), noisy[1].ravel())[0, 1] == pytest.approx(0, abs=0.06)


def test_blur_is_scipys_on_each_channel():
    images = patches(32, 3)
    for severity, deviation in zip(SEVERITIES, (0.4, 0.6, 0.7, 0.8, 1.0), strict=True):
        blurred = corrupt(images, "gaussian_blur", severity, seed=0)
        for image, found in zip(images, blurred, strict=True):
            for channel in range(3):
                expected = gaussian_filter(image[..., channel] / 255, deviation, mode="nearest") * 255
                assert np.abs(found[..., channel] - np.floor(expected)).max() <= 1  # the last digit of a float
                assert (found[..., channel] == np.floor(expected)).mean() > 0.99


def test_contrast_shrinks_around_the_mean_of_each_channel():
    images = patches(32, 3)
    for severity, factor in zip(SEVERITIES, (0.75, 0.5, 0.4, 0.3, 0.15), strict=True):
        for image, found in zip(images, corrupt(images, "contrast", severity, seed=0), strict=True):
            mean = image.mean(axis=(0, 1))
            np.testing.assert_allclose(found, (image - mean) * factor + mean, atol=1.001)  # cut off


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows_file(channels, tmp_path: Path):
    images = patches(32, channels, 5)
    for severity, quality in zip(SEVERITIES, (80, 65, 58, 50, 40), strict=True):
        for image, found in zip(images, corrupt(images, "jpeg_compression", severity, seed=0), strict=True):
            Image.fromarray(image.squeeze()).save(tmp_path / "image.jpg", quality=quality)
            np.testing.assert_array_equal(
                found.squeeze(), np.asarray(Image.open(io.BytesIO((tmp_path / "image.jpg").read_bytes())))
            )


def test_pixelation_averages_boxes():
    images = patches(40, 3, 5)[:, :20]  # 40 pixels wide and 20 high
    found = corrupt(images, "pixelate", 5, seed=0)
    for image, corrupted in zip(images, found, strict=True):
        small = Image.fromarray(image).resize((26, 13), Image.Resampling.BOX)
        np.testing.assert_array_equal(corrupted, np.asarray(small.resize((40, 20), Image.Resampling.BOX)))


@pytest.mark.parametrize(
    ("images", "severity", "message"),
    [
        (np.zeros((2, 8, 8, 3)), 1, "uint8 images"),
        (np.zeros((8, 8, 3), np.uint8), 1, "uint8 images"),
        (np.zeros((2, 8, 8, 4), np.uint8), 1, "uint8 images"),
        (np.zeros((2, 8, 7, 3), np.uint8), 1, "8 × 8 pixels or more"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0, "from 1 to 5"),
        (np.zeros((2, 8, 8, 3), np.uint8), 6, "from 1 to 5"),
    ],
)
def test_other_images_and_severities_are_refused(images, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(images, "contrast", severity, seed=0)
