import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.data.augment import LUMA, Augmentation, apply, condition_size, draw
from components.data.config import AugmentationConfig

EVERYTHING = AugmentationConfig(
    crop_min_side=0.7, crop_aspect=4 / 3, flip=True, rotate_degrees=15, shear_degrees=8, translate=0.05, brightness=0.3,
    contrast=0.3, saturation=0.3, hue=0.1, greyscale_probability=0.2, blur_probability=0.5, unaltered_probability=0.25,
)  # fmt: skip
CHANNELS = pytest.mark.parametrize("channels", [1, 3], ids=["grey", "RGB"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, channels: int, size: int = 8) -> Tensor:
    return torch.rand(n, channels, size, size, generator=seeded(9))


def smooth(n: int, channels: int, size: int = 32) -> Tensor:
    """Slow waves between 0.35 and 0.65: resampling loses little of them, and colours stay inside the range."""
    y, x = torch.meshgrid(torch.linspace(0, 3, size), torch.linspace(0, 3, size), indexing="ij")
    phases = torch.linspace(0, 5, n * channels).view(n, channels, 1, 1)
    return 0.5 + 0.15 * torch.sin(x + phases) * torch.cos(y - phases)


def from_condition(condition: Tensor, channels: int) -> Augmentation:
    """The augmentation that a decoder is told about."""
    n = len(condition)
    return Augmentation(
        geometry=condition[:, :6].view(n, 2, 3),
        colour=condition[:, 6:-2].view(n, channels, channels),
        contrast=condition[:, -2],
        blur=condition[:, -1],
    )


@CHANNELS
def test_the_condition_describes_the_view_completely(channels):
    images = noise(50, channels)
    drawn = draw(EVERYTHING, 50, channels, seeded())
    assert drawn.condition.shape == (50, condition_size(channels))
    again = apply(images, from_condition(drawn.condition, channels), "reflection")
    assert torch.equal(again, apply(images, drawn, "reflection"))


@CHANNELS
def test_the_same_generator_draws_the_same_views(channels):
    one, again, other = (draw(EVERYTHING, 20, channels, seeded(s)).condition for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@CHANNELS
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(
    "config", [AugmentationConfig(), replace(EVERYTHING, unaltered_probability=1.0)], ids=["off", "identity"]
)
def test_views_without_a_change_keep_every_pixel(channels, padding, config):
    images = torch.randint(256, (64, channels, 32, 32), generator=seeded())
    drawn = draw(config, 64, channels, seeded())
    assert drawn.condition.abs().max() <= 1e-6
    views = apply(images / 255, drawn, padding)
    assert torch.equal((views * 255).round().long(), images)


def test_the_share_of_identity_views():
    condition = draw(EVERYTHING, 20_000, 3, seeded()).condition
    assert (condition == 0).all(1).float().mean().item() == pytest.approx(0.25, abs=0.01)


@CHANNELS
def test_the_geometry_can_be_undone(channels):
    config = replace(
        EVERYTHING,
        brightness=0,
        contrast=0,
        saturation=0,
        hue=0,
        greyscale_probability=0,
        blur_probability=0,
        unaltered_probability=0,
    )
    images = smooth(40, channels)
    drawn = draw(config, 40, channels, seeded())
    square = F.pad(drawn.geometry + torch.eye(2, 3), (0, 0, 0, 1))
    square[:, 2, 2] = 1
    inverse = torch.linalg.inv(square)[:, :2] - torch.eye(2, 3)
    undo = replace(drawn, geometry=inverse)
    back = apply(apply(images, drawn, "border"), undo, "border")
    # where the view still shows the pixel: the inverse grid and its neighbourhood lie inside
    where = F.affine_grid(inverse + torch.eye(2, 3), list(images.shape), align_corners=False)  # (n, H, W, 2)
    seen = (where.abs().amax(-1) < 0.9)[:, None].expand_as(images)
    assert seen.float().mean() > 0.5
    assert (back - images)[seen].abs().max() < 0.01
    assert (apply(images, drawn, "border") - images)[seen].abs().max() > 0.1  # it was no small change


def test_the_colours_can_be_undone():
    config = AugmentationConfig(brightness=0.2, contrast=0.2, saturation=0.3, hue=0.1, unaltered_probability=0)
    images = smooth(40, 3)
    drawn = draw(config, 40, 3, seeded())
    views = apply(images, drawn, "border")
    assert (views - images).abs().max() > 0.1
    assert 0 < views.min() < views.max() < 1  # nothing was clipped
    mean = torch.einsum("c,nchw->n", torch.tensor(LUMA), views)[:, None, None, None] / 32**2  # contrast leaves it
    plain = (views - mean) / (1 + drawn.contrast[:, None, None, None]) + mean
    back = torch.einsum("ncd,ndhw->nchw", torch.linalg.inv(drawn.colour + torch.eye(3)), plain)
    torch.testing.assert_close(back, images, atol=1e-4, rtol=0)


def only(**changes: float | bool) -> Callable[[int], Augmentation]:
    config = AugmentationConfig(**{"unaltered_probability": 0.0, "jitter_probability": 1.0, **changes})
    return lambda channels: draw(config, 5000, channels, seeded())


def test_rotation_turns_by_up_to_the_angle():
    linear = only(rotate_degrees=15)(1).geometry[:, :, :2] + torch.eye(2)
    angle = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert -15 <= angle.min() < -14.9
    assert 14.9 < angle.max() <= 15
    torch.testing.assert_close(linear @ linear.transpose(1, 2), torch.eye(2).expand(5000, 2, 2))


def test_shear_slants_by_up_to_the_angle():
    geometry = only(shear_degrees=8)(1).geometry
    slant = torch.rad2deg(torch.atan(geometry[:, 0, 1]))
    assert 7.9 < slant.abs().max() <= 8.0001
    geometry[:, 0, 1] = 0
    assert (geometry == 0).all()


def test_crops_lie_inside_the_image():
    geometry = only(crop_min_side=0.6)(1).geometry
    scale, shift = geometry[:, 0, 0] + 1, geometry[:, :, 2]
    assert 0.6 <= scale.min() < 0.61
    assert 0.99 < scale.max() <= 1
    torch.testing.assert_close(geometry[:, 0, 0], geometry[:, 1, 1])
    assert ((shift.abs() + scale[:, None]) <= 1 + 1e-6).all()
    assert shift.abs().max() > 0.35


def test_translation_is_a_share_of_the_side():
    geometry = only(translate=0.25)(1).geometry
    assert 0.49 < geometry[:, :, 2].abs().max() <= 0.5  # the side is 2 long
    moved = Augmentation(torch.zeros(1, 2, 3), torch.zeros(1, 1, 1), torch.zeros(1))
    moved.geometry[0, 0, 2] = 0.25 * 2
    image = noise(1, 1)
    view = apply(image, moved, "zeros")
    torch.testing.assert_close(view[..., :6], image[..., 2:])  # a quarter of 8 pixels
    assert (view[..., 6:] == 0).all()


def test_flips_mirror_half_of_the_views():
    drawn = only(flip=True)(3)
    mirrored = drawn.geometry[:, 0, 0] == -2
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)
    images = noise(5000, 3, 4)
    views = apply(images, drawn, "zeros")
    torch.testing.assert_close(views[mirrored], images.flip(3)[mirrored])
    torch.testing.assert_close(views[~mirrored], images[~mirrored])


@CHANNELS
def test_brightness_and_contrast_keep_to_their_ranges(channels):
    bright = only(brightness=0.3)(channels)
    factor = torch.diagonal(bright.colour, dim1=1, dim2=2) + 1  # (n, C)
    assert 0.7 <= factor.min() < 0.71
    assert 1.29 < factor.max() <= 1.3
    assert (bright.contrast == 0).all()
    contrast = only(contrast=0.4)(channels)
    assert 0.39 < contrast.contrast.abs().max() <= 0.4
    assert contrast.colour.abs().max() < 1e-6


def test_jitter_leaves_out_the_share_that_it_should():
    drawn = only(brightness=0.3, contrast=0.3, jitter_probability=0.8)(1)
    untouched = (drawn.contrast == 0) & (drawn.colour == 0).all((1, 2))
    assert untouched.float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_brightness_contrast_and_saturation_do_what_torchvisions_do():
    from torchvision.transforms.v2 import functional as reference

    images = smooth(6, 3)
    zero = Augmentation(torch.zeros(6, 2, 3), torch.zeros(6, 3, 3), torch.zeros(6))
    brighter = apply(images, replace(zero, colour=0.2 * torch.eye(3).expand(6, 3, 3)), "border")
    torch.testing.assert_close(brighter, reference.adjust_brightness(images, 1.2), atol=1e-4, rtol=0)
    steeper = apply(images, replace(zero, contrast=torch.full((6,), 0.5)), "border")
    torch.testing.assert_close(steeper, reference.adjust_contrast(images, 1.5), atol=2e-3, rtol=0)

    drawn = only(saturation=0.5)(3)
    strength = (drawn.colour[:6] + torch.eye(3))[:, 0, 1] / -LUMA[1] + 1  # off the diagonal stands (1 − s)·luma
    views = apply(images, Augmentation(drawn.geometry[:6], drawn.colour[:6], drawn.contrast[:6]), "border")
    for image, view, s in zip(images, views, strength.tolist(), strict=True):
        assert 0.5 <= s <= 1.5
        torch.testing.assert_close(view, reference.adjust_saturation(image, s), atol=2e-3, rtol=0)
    torch.testing.assert_close(torch.tensor(LUMA) @ drawn.colour, torch.zeros(5000, 3), atol=1e-5, rtol=0)


def test_hue_turns_colours_and_leaves_luma_and_greys():
    drawn = only(hue=0.5)(3)
    matrix = drawn.colour + torch.eye(3)
    luma, grey = torch.tensor(LUMA), torch.ones(3)
    torch.testing.assert_close(luma @ matrix, luma.expand(5000, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(matrix @ grey, grey.expand(5000, 3), atol=1e-3, rtol=0)
    turned = torch.acos(((torch.diagonal(matrix, dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))  # trace = 1 + 2 cos
    assert turned.max() > 0.98 * math.pi
    assert torch.linalg.det(matrix).sub(1).abs().max() < 1e-3


def test_greyscale_gives_the_luma_in_every_channel():
    drawn = draw(
        AugmentationConfig(greyscale_probability=1, hue=0.2, saturation=0.5, unaltered_probability=0), 20, 3, seeded()
    )
    images = smooth(20, 3)
    views = apply(images, drawn, "border")
    luma = torch.einsum("c,nchw->nhw", torch.tensor(LUMA), images)[:, None]
    torch.testing.assert_close(views, luma.expand_as(views), atol=1e-4, rtol=0)
    some = draw(AugmentationConfig(greyscale_probability=0.3, unaltered_probability=0), 5000, 3, seeded()).colour
    assert (some.abs().amax((1, 2)) > 0.1).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_views_stay_between_0_and_1():
    drawn = draw(
        replace(EVERYTHING, brightness=0.9, contrast=0.9, blur_probability=0.0, unaltered_probability=0),
        200,
        3,
        seeded(),
    )
    views = apply(noise(200, 3), drawn, "reflection")
    assert views.min() == 0
    assert views.max() == 1


def test_padding_decides_what_lies_beyond_the_edge():
    half = Augmentation(torch.zeros(1, 2, 3), torch.zeros(1, 1, 1), torch.zeros(1))
    half.geometry[0, 0, 2] = 1.0  # half an image to the right
    image = noise(1, 1)
    beyond = {padding: apply(image, half, padding)[..., 4:] for padding in ("zeros", "border", "reflection")}
    assert (beyond["zeros"] == 0).all()
    torch.testing.assert_close(beyond["border"], image[..., 7:].expand(1, 1, 8, 4))
    torch.testing.assert_close(beyond["reflection"], image[..., 4:].flip(3))


def test_crops_have_sides_of_up_to_the_aspect():
    drawn = only(crop_min_side=0.5, crop_aspect=1.5)(1).geometry
    width, height = drawn[:, 0, 0] + 1, drawn[:, 1, 1] + 1
    assert ((drawn[:, :, 2].abs() + torch.stack([width, height], 1)) <= 1 + 1e-6).all()
    inside = (width < 1) & (height < 1)  # a crop that would be wider than the image is as wide as it
    ratio = (width / height)[inside].log() / math.log(1.5)
    assert -1 <= ratio.min() < -0.99
    assert 0.99 < ratio.max() <= 1 + 1e-5
    assert ratio.mean().abs() < 0.05


@CHANNELS
@pytest.mark.parametrize("size", [8, 32, 60])
def test_blur_does_what_torchvisions_does(channels, size):
    from torchvision.transforms.v2 import functional as reference

    images, sigma = noise(6, channels, size), [0.0, 0.1, 0.5, 1.0, 1.7, 2.0]
    nothing = draw(AugmentationConfig(), 6, channels, seeded())
    views = apply(images, replace(nothing, blur=torch.tensor(sigma)), "border")
    kernel = 2 * max(1, round(size / 20)) + 1
    torch.testing.assert_close(views[0], images[0], atol=1e-5, rtol=0)
    for image, view, s in zip(images[1:], views[1:], sigma[1:], strict=True):
        expected = reference.gaussian_blur(image, [kernel, kernel], [s, s])
        torch.testing.assert_close(view, expected, atol=1e-4, rtol=0)


def test_the_share_and_strength_of_blurred_views():
    blur = draw(AugmentationConfig(blur_probability=0.4, unaltered_probability=0.5), 20_000, 1, seeded()).blur
    assert blur is not None
    assert (blur > 0).float().mean().item() == pytest.approx(0.4 * 0.5, abs=0.01)
    assert 0.1 <= blur[blur > 0].min() < 0.11
    assert 1.99 < blur.max() <= 2


def test_what_is_switched_off_draws_nothing():
    """So that a new transform changes no run that does not use it."""
    generators = [seeded(), seeded()]
    plain = replace(EVERYTHING, blur_probability=0.0, crop_aspect=1.0)
    draw(plain, 10, 3, generators[0])
    for count in (10, 10, 10, 10, 20, 20, *[10] * 7):  # angle, shear, mirror, scale, two shifts, colours, identity
        torch.rand(count, generator=generators[1])
    assert torch.equal(torch.rand(3, generator=generators[0]), torch.rand(3, generator=generators[1]))


@CHANNELS
def test_a_view_is_what_a_reference_makes_of_its_image(channels):
    """Every transform at once, image by image: the grid read point by point, colours in plain arithmetic."""
    images = noise(6, channels)
    drawn = draw(replace(EVERYTHING, unaltered_probability=0.0, blur_probability=0.0), 6, channels, seeded(3))
    views = apply(images, drawn, "border")
    luma = torch.tensor(LUMA if channels == 3 else (1.0,))
    for i in range(6):
        moved = torch.zeros(channels, 8, 8)
        for row in range(8):
            for column in range(8):
                x, y = (2 * column + 1) / 8 - 1, (2 * row + 1) / 8 - 1
                linear = drawn.geometry[i] + torch.eye(2, 3)
                u, v = ((linear @ torch.tensor([x, y, 1.0]) + 1) * 8 - 1).div(2).clamp(0, 7).tolist()
                left, top = int(u), int(v)
                right, bottom = min(left + 1, 7), min(top + 1, 7)
                a, b = u - left, v - top
                upper = (1 - a) * images[i, :, top, left] + a * images[i, :, top, right]
                lower = (1 - a) * images[i, :, bottom, left] + a * images[i, :, bottom, right]
                moved[:, row, column] = (1 - b) * upper + b * lower
        coloured = ((drawn.colour[i] + torch.eye(channels)) @ moved.flatten(1)).view_as(moved)
        mean = (luma @ coloured.flatten(1)).mean()
        expected = (coloured + drawn.contrast[i] * (coloured - mean)).clamp(0, 1)
        torch.testing.assert_close(views[i], expected, atol=1e-4, rtol=0)


def test_hue_is_a_rotation_of_the_chroma_plane():
    """Colour by colour, in Python's own YIQ."""
    import colorsys

    images = smooth(5, 3, 4)
    drawn = only(hue=0.4)(3)
    drawn = drawn.of(torch.arange(5))
    views = apply(images, drawn, "border")
    for i in range(5):
        matrix = drawn.colour[i] + torch.eye(3)
        # the angle, from what becomes of a colour on the I axis
        _, turned_i, turned_q = colorsys.rgb_to_yiq(
            *(matrix @ torch.tensor(colorsys.yiq_to_rgb(0.5, 0.1, 0.0))).tolist()
        )
        angle = math.atan2(turned_q, turned_i)
        for pixel, view in zip(images[i].flatten(1).T.tolist(), views[i].flatten(1).T.tolist(), strict=True):
            y, in_phase, quadrature = colorsys.rgb_to_yiq(*pixel)
            turned = complex(in_phase, quadrature) * complex(math.cos(angle), math.sin(angle))
            expected = colorsys.yiq_to_rgb(y, turned.real, turned.imag)
            assert view == pytest.approx(expected, abs=0.01)  # Python rounds the matrices to two digits
