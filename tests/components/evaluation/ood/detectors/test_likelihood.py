import io

import numpy as np
import pytest
from PIL import Image

from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.detectors.likelihood_ratio import LikelihoodRatio
from components.evaluation.ood.detectors.nll import Nll
from components.evaluation.ood.detectors.nll_complexity import NllComplexity, png_bits_per_dim
from components.evaluation.ood.detectors.typicality import Typicality

WIDTH = 4


def test_likelihood_detectors():
    rng = np.random.default_rng(0)
    images = np.stack([np.zeros((16, 16, 3)), rng.integers(0, 256, (16, 16, 3))]).astype(np.uint8)
    batch = Batch(np.zeros((2, WIDTH)), images, np.array([1.0, 8.0]))
    np.testing.assert_array_equal(Nll().score(batch), [1, 8])
    complexity = png_bits_per_dim(images)
    assert complexity[0] < 1.1 < 8 < complexity[1]  # noise can't be compressed, and PNG adds its header
    np.testing.assert_allclose(NllComplexity().score(batch), [1 - complexity[0], 8 - complexity[1]])


@pytest.mark.parametrize("channels", [1, 3])
def test_png_size_is_a_real_files(channels, tmp_path):
    image = np.random.default_rng(0).integers(0, 99, (6, 5, channels)).astype(np.uint8)
    Image.fromarray(image.squeeze()).save(tmp_path / "image.png", optimize=True)
    assert png_bits_per_dim(image[None])[0] == 8 * (tmp_path / "image.png").stat().st_size / image.size
    assert np.array_equal(np.asarray(Image.open(io.BytesIO((tmp_path / "image.png").read_bytes()))), image.squeeze())


def test_typicality_is_the_distance_to_the_entropy_of_validation_images(fitting_data, make_batch):
    rng = np.random.default_rng(0)
    bits = rng.normal(3, 0.2, 300)
    val = make_batch(fitting_data.val.features, bits)
    fitted = Typicality.fit(InDistribution(fitting_data.train, val, fitting_data.probe), 1)
    likely, usual, unlikely = fitted.score(make_batch(np.zeros((3, WIDTH)), np.array([2.0, bits.mean(), 4.0])))
    assert usual == 0
    assert likely == pytest.approx(bits.mean() - 2)  # too likely is suspicious as well
    assert unlikely == pytest.approx(4 - bits.mean())


def test_likelihood_ratio_subtracts_what_the_local_head_explains():
    bits, without_context = np.array([2.0, 2.0, 5.0]), np.array([4.0, 2.5, 7.0])
    batch = Batch(np.zeros((3, WIDTH)), np.zeros((3, 8, 8, 1), np.uint8), bits, without_context)
    helped, less, noisy_but_helped = LikelihoodRatio().score(batch)
    assert less > helped == noisy_but_helped  # 2 bits of context each, however many bits the image takes
    assert helped == -2


def test_a_likelihood_that_is_missing_is_not_guessed(fitting_data, make_batch):
    for detector in (Nll(), Typicality(3.0), NllComplexity(), LikelihoodRatio()):
        with pytest.raises(ValueError, match="needs a likelihood"):
            detector.score(make_batch(np.zeros((2, WIDTH))))
    with pytest.raises(ValueError, match="needs a likelihood"):
        Typicality.fit(fitting_data, 1)
