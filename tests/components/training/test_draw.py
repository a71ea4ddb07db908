import numpy as np
import pytest
import torch

from components.training.draw import completions, samples


@pytest.mark.parametrize(("patch_size", "channels"), [(1, 1), (2, 3)])
def test_samples_hold_colours_of_the_palette(make_model, make_palette, patch_size, channels):
    model = make_model(patch_size, 4, 5, channels)
    drawn = samples(model, seed=0)
    assert drawn.shape == (64, 4, 4, channels)
    assert drawn.dtype == np.uint8
    known = {tuple(colour) for colour in make_palette(5, channels).tolist()}
    assert {tuple(pixel) for pixel in drawn.reshape(-1, channels).tolist()} == known
    assert np.array_equal(drawn, samples(model, seed=0))
    assert not np.array_equal(drawn, samples(model, seed=1))


@pytest.mark.parametrize(("patch_size", "size", "given"), [(1, 4, 2), (2, 4, 2), (2, 6, 2), (4, 4, 0)])
def test_completions_keep_the_upper_part_that_they_show(make_model, make_palette, patch_size, size, given):
    model = make_model(patch_size, size, 5)
    images = make_palette(5, 1)[np.random.default_rng(0).integers(0, 5, (20, size, size))]  # (20, H, W, 1)
    rows = completions(model, images, seed=0)
    assert np.array_equal(rows["original"], images[:16])
    assert np.array_equal(rows["given"][:, :given], images[:16, :given])
    assert (rows["given"][:, given:] == 128).all()
    for name in ("completed", "again"):
        assert np.array_equal(rows[name][:, :given], images[:16, :given])
        assert not np.array_equal(rows[name][:, given:], images[:16, given:])
    assert not np.array_equal(rows["completed"], rows["again"])
    assert torch.is_grad_enabled()
