import numpy as np
import pytest
import torch

from components.objectives.generative.permuted import PermutedConfig
from components.training.samples import completions, samples


@pytest.mark.parametrize(("patch_size", "channels"), [(1, 1), (2, 3)])
def test_samples_hold_colours_of_the_palette(make_model, make_palette, patch_size, channels):
    model = make_model(patch_size, 4, 5, channels)
    drawn = samples(model, seed=0)
    assert len(drawn) == 2
    known = {tuple(colour) for colour in make_palette(5, channels).tolist()}
    for name, images in drawn.items():
        assert images.shape == (32, 4, 4, channels)
        assert images.dtype == np.uint8
        assert {tuple(pixel) for pixel in images.reshape(-1, channels).tolist()} == known
        assert np.array_equal(images, samples(model, seed=0)[name])
        assert not np.array_equal(images, samples(model, seed=1)[name])


@pytest.mark.parametrize(("patch_size", "size", "given"), [(1, 4, 2), (2, 4, 2), (2, 6, 2), (4, 4, 0)])
def test_completions_keep_the_upper_part_that_they_show(make_model, make_palette, patch_size, size, given):
    model = make_model(patch_size, size, 5)
    images = make_palette(5, 1)[np.random.default_rng(0).integers(0, 5, (20, size, size))]  # (20, H, W, 1)
    rows = completions(model, images, seed=0)
    assert np.array_equal(rows["original"], images[:16])
    assert np.array_equal(rows["given"][:, :given], images[:16, :given])
    assert (rows["given"][:, given:] == 128).all()
    drawn = [name for name in rows if name not in ("original", "given")]
    assert len(drawn) == 3
    for name in drawn:
        assert np.array_equal(rows[name][:, :given], images[:16, :given])
        assert not np.array_equal(rows[name][:, given:], images[:16, given:])
    assert not np.array_equal(rows["completed"], rows["again"])
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("patch_size", "size", "edge"), [(1, 3, 1), (2, 8, 2), (1, 8, 2)])
def test_a_model_that_takes_any_order_fills_in_the_middle(make_model, make_palette, patch_size, size, edge):
    model = make_model(patch_size, size, 5, generative=PermutedConfig())
    images = make_palette(5, 1)[np.random.default_rng(0).integers(0, 5, (16, size, size))]  # (16, H, W, 1)
    rows = completions(model, images, seed=0)
    hole = np.zeros((size, size), dtype=bool)
    hole[edge:-edge, edge:-edge] = True
    assert (rows.pop("given")[:, hole] == 128).all()
    for completed in rows.values():
        assert np.array_equal(completed[:, ~hole], images[:, ~hole])
    assert not np.array_equal(rows["completed"][:, hole], rows["again"][:, hole])


def test_8_bit_images_are_completed_too(make_model):
    model = make_model(2, 4, channels=3, likelihood="logistic_mixture")
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    rows = completions(model, images, seed=0)
    assert np.array_equal(rows["completed"][:, :2], images[:, :2])
    assert rows["completed"].shape == images.shape
