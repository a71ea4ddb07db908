"""Views that are cut out of images with more pixels than the model takes."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.data import augment
from components.data.augment import Augmentation, apply, draw
from components.data.config import AugmentationConfig


def seen(x: Tensor, y: Tensor) -> Tensor:
    """A scene at places in [-1, 1], with much detail: 24 periods across."""
    return 0.5 + 0.4 * torch.sin(24 * torch.pi * x) * torch.cos(9 * torch.pi * y)


def pictures(side: int, places: int = 1) -> Tensor:
    """The scene as (1, 1, side, side): each pixel is the mean over a square of it."""
    fine = (torch.arange(side * places) + 0.5) * 2 / (side * places) - 1
    return F.avg_pool2d(seen(fine[None, :], fine[:, None])[None, None], places)


def test_a_view_of_finer_images_shows_what_enlarging_the_image_cannot():
    """A quarter of the scene, cut out of 16 times as many pixels, against the same quarter of the scene itself."""
    image, finer = pictures(32, 8), pictures(128, 2)
    crop = Augmentation(torch.zeros(1, 2, 3), torch.zeros(1, 1, 1), torch.zeros(1))
    crop.geometry[0, :, :2] = -0.75 * torch.eye(2)
    crop.geometry[0, 0, 2] = 0.5  # the centre, in shares of half a side
    fine = (torch.arange(256) + 0.5) * 2 / 256 - 1
    truth = F.avg_pool2d(seen(0.25 * fine[None, :] + 0.5, 0.25 * fine[:, None])[None, None], 8)
    stored = (finer.permute(0, 2, 3, 1) * 255).round().byte()
    error = {
        "finer": (apply(image, crop, "zeros", stored) - truth).abs().mean(),
        "image": (apply(image, crop, "zeros") - truth).abs().mean(),
    }
    assert error["finer"] < 0.05
    assert error["image"] > 0.1


@pytest.mark.parametrize("side", [32, 48, 20])  # of the finer images: 4, 6 and 2.5 times as large
def test_a_view_of_finer_images_has_no_aliases(side):
    """A checkerboard finer than the view's pixels is grey, wherever it is moved by a hair."""
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2 * 255
    finer = board[None, :, :, None].byte().repeat(3, 1, 1, 1)
    moved = Augmentation(torch.zeros(6, 2, 3), torch.zeros(6, 1, 1), torch.zeros(6))
    moved.geometry[:, 0, 2] = torch.linspace(1e-4, 2 / side, 6)
    views = apply(torch.zeros(6, 1, 8, 8), moved, "reflection", finer)
    assert views.shape == (6, 1, 8, 8)
    assert (views - 0.5).abs().max() < 0.15


def test_views_of_finer_images_are_the_same_however_many_are_cut_out_together(monkeypatch):
    config = AugmentationConfig(crop_min_side=0.3, rotate_degrees=20, unaltered_probability=0)
    drawn = draw(config, 12, 3, torch.Generator().manual_seed(0))
    finer = (torch.rand(6, 3, 20, 20, generator=torch.Generator().manual_seed(1)).permute(0, 2, 3, 1) * 255).byte()
    images = torch.zeros(12, 3, 8, 8)
    together = apply(images, drawn, "border", finer)
    monkeypatch.setattr(augment, "SAMPLES_TOGETHER", 3 * 24**2 * 4)  # four of six
    torch.testing.assert_close(apply(images, drawn, "border", finer), together)
    alone = apply(images[7:8], drawn.of(torch.tensor([7])), "border", finer[1:2])
    torch.testing.assert_close(alone, together[7:8])
