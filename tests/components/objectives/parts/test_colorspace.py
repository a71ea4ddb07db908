import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.objectives.parts.colorspace import from_lab, to_lab

# Bruce Lindbloom's colour calculator, sRGB and D65
KNOWN = {
    (1.0, 0.0, 0.0): (53.2408, 80.0925, 67.2032),
    (0.0, 1.0, 0.0): (87.7347, -86.1827, 83.1793),
    (0.0, 0.0, 1.0): (32.2970, 79.1875, -107.8602),
    (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
}


@pytest.mark.parametrize(("rgb", "lab"), KNOWN.items())
def test_known_colours(rgb, lab):
    pixel = torch.tensor(rgb).view(3, 1, 1)
    torch.testing.assert_close(to_lab(pixel).flatten(), torch.tensor(lab), atol=2e-3, rtol=0)


@given(st.integers(0, 999))
def test_there_and_back(seed):
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(from_lab(to_lab(images)), images, atol=1e-4, rtol=0)


def test_a_colour_that_no_screen_shows_is_clipped():
    shown = from_lab(torch.tensor([50.0, 120.0, -120.0]).view(3, 1, 1))
    assert shown.min() == 0
    assert shown.max().item() == pytest.approx(1, abs=1e-6)
