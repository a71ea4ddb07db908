import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.model.tokens import PaletteTokenizer, PixelTokenizer, scaled, to_unit


def noise(n: int, size: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize(("colours", "channels"), [(2, 1), (17, 1), (256, 1), (64, 3), (512, 3)])
def test_a_token_is_the_nearest_colour_and_of_two_the_first(make_palette, colours, channels):
    palette = make_palette(colours, channels)
    images = noise(40, 16, channels)  # many enough for pixels midway between two colours
    distances = ((images[..., None, :].astype(int) - palette.astype(int)) ** 2).sum(-1)  # (N, H, W, K), exact
    found = PaletteTokenizer(torch.from_numpy(palette), 1).quantise(to_unit(torch.from_numpy(images)))
    assert np.array_equal(found.numpy(), distances.argmin(-1))


@pytest.mark.parametrize("patch_size", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_undo_the_tokens_of_images_in_the_palette(make_palette, patch_size, channels):
    palette = make_palette(32, channels)
    chosen = palette[np.random.default_rng(1).integers(0, 32, (3, 8, 8))]  # (N, H, W, C)
    tokenizer = PaletteTokenizer(torch.from_numpy(palette), patch_size)
    tokens = tokenizer(to_unit(torch.from_numpy(chosen)))
    assert tokens.shape == (3, (8 // patch_size) ** 2, patch_size**2)
    assert torch.equal(tokenizer.colours(tokens), to_unit(torch.from_numpy(chosen)))


def test_patches_and_their_tokens_stand_in_raster_order():
    indices = torch.arange(16).view(1, 4, 4)
    tokens = PaletteTokenizer(torch.zeros(2, 1), 2).patches(indices)[0]
    assert tokens.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=30, unique=True), st.floats(0, 1))
def test_no_grey_level_is_nearer_than_the_token_found(levels, value):
    palette = torch.tensor(sorted(levels), dtype=torch.uint8)[:, None]
    found = PaletteTokenizer(palette, 1).quantise(torch.full((1, 1, 1, 1), value))
    distances = (palette[:, 0].double() / 255 - value).abs()
    assert distances[found.item()] <= distances.min() + 1e-6


def test_units_are_channels_first_between_0_and_1():
    images = to_unit(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
    assert images.shape == (1, 3, 1, 1)
    assert images.flatten().tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_8_bit_tokens_are_the_pixels(channels, patch_size):
    images = noise(3, 8, channels)
    tokenizer = PixelTokenizer(patch_size)
    tokens = tokenizer(to_unit(torch.from_numpy(images)))
    assert tokens.shape == (3, (8 // patch_size) ** 2, patch_size**2, channels)
    assert torch.equal(tokens[:, 0, 0], torch.from_numpy(images)[:, 0, 0].long())
    last = torch.from_numpy(images)[:, 8 - patch_size :, 8 - patch_size :].flatten(1, 2).long()
    assert torch.equal(tokens[:, -1], last)
    assert torch.equal(tokenizer.colours(tokens), to_unit(torch.from_numpy(images)))


@given(st.floats(0, 1))
def test_8_bit_tokens_of_a_view_are_the_nearest_levels(value):
    found = PixelTokenizer(1)(torch.full((1, 1, 1, 1), value)).item()
    assert 0 <= found <= 255
    assert abs(found - 255 * value) <= 0.5 + 1e-4


def test_scaled_values_reach_from_minus_one_to_one():
    assert scaled(torch.tensor([0, 255])).tolist() == [-1, 1]
    assert scaled(torch.arange(256)).diff().tolist() == pytest.approx([2 / 255] * 255, abs=1e-6)
