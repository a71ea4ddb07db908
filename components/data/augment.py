"""Random views of a batch of images, drawn and applied as tensors on the device that holds them.

The geometric transforms of an image fold into one affine grid, its colour transforms into one affine map of the
colour space, so that a view costs one resampling and one small matrix product. The parameters come back with the view:
the decoder is told them (`Augmentation.condition`), the encoder never is. Strengths follow SimCLR (Chen et al. 2020,
appendix A) as torchvision's ColorJitter implements them, but for hue, which is a rotation of the chroma plane instead
of HSV's.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from components.data.config import AugmentationConfig

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for n images, as differences from doing nothing: all zeros leave an image as it is."""

    geometry: Tensor  # (n, 2, 3): output → input coordinates in [-1, 1], minus the identity
    colour: Tensor  # (n, C, C): matrix on the colours, minus the identity
    contrast: Tensor  # (n,): factor on the distance from the image's mean luma, minus 1

    @property
    def condition(self) -> Tensor:
        """The parameters as one vector an image (n, A)."""
        return torch.cat([self.geometry.flatten(1), self.colour.flatten(1), self.contrast[:, None]], 1)


def condition_size(channels: int) -> int:
    """Length A of an image's parameter vector."""
    return 6 + channels**2 + 1


def draw(config: AugmentationConfig, n: int, channels: int, generator: torch.Generator) -> Augmentation:
    """Draw the parameters of n views, on the generator's device."""
    device = generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator, device=device) * (high - low) + low

    def share(probability: float) -> Tensor:
        return torch.rand(n, generator=generator, device=device) < probability

    identity2 = torch.eye(2, device=device)
    angle = uniform(-1, 1) * math.radians(config.rotate_degrees)
    shear = torch.tan(uniform(-1, 1) * math.radians(config.shear_degrees))
    mirror = 1.0 - 2.0 * (share(0.5) & torch.tensor(config.flip, device=device)).float()
    scale = uniform(config.crop_scale, 1.0)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    slant = identity2.repeat(n, 1, 1)
    slant[:, 0, 1] = shear
    linear = rotation @ slant * scale[:, None, None]
    linear[:, :, 0] *= mirror[:, None]
    # a crop of side `scale` may lie anywhere inside; `translate` moves it further, in shares of the side (2 units)
    shift = uniform(-1, 1, 2) * (1 - scale)[:, None] + uniform(-1, 1, 2) * 2 * config.translate
    geometry = torch.cat([linear - identity2, shift[:, :, None]], 2)

    jitter = share(config.jitter_probability).float()
    brightness = 1 + jitter * uniform(-1, 1) * config.brightness
    contrast = jitter * uniform(-1, 1) * config.contrast
    identity = torch.eye(channels, device=device).expand(n, channels, channels)
    colour = identity
    if channels == 3:
        grey = share(config.greyscale).float()
        saturation = (1 + jitter * uniform(-1, 1) * config.saturation) * (1 - grey)
        to_luma = torch.tensor(LUMA, device=device).expand(3, 3)  # every row gives the luma
        hue = _hue_rotation(jitter * uniform(-1, 1) * config.hue * 2 * math.pi)
        colour = (to_luma + saturation[:, None, None] * (identity - to_luma)) @ hue
    colour = colour * brightness[:, None, None]

    kept = (~share(config.identity)).float()
    return Augmentation(geometry * kept[:, None, None], (colour - identity) * kept[:, None, None], contrast * kept)


def apply(images: Tensor, drawn: Augmentation, padding: str) -> Tensor:
    """The views (n, C, H, W) in [0, 1] of images (n, C, H, W) in [0, 1]; padding as in `grid_sample`."""
    channels = images.shape[1]
    identity = torch.eye(2, 3, device=images.device)
    grid = F.affine_grid(drawn.geometry + identity, list(images.shape), align_corners=False)
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    matrix = drawn.colour + torch.eye(channels, device=images.device)
    views = torch.einsum("ncd,ndhw->nchw", matrix, views)
    luma = torch.tensor(LUMA if channels == 3 else (1.0,), device=images.device)
    mean = torch.einsum("c,nchw->n", luma, views) / (views.shape[2] * views.shape[3])
    views = views + drawn.contrast[:, None, None, None] * (views - mean[:, None, None, None])
    return views.clamp(0, 1)


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotation of the chroma plane (I, Q of YIQ) by an angle in radians, as matrices (n, 3, 3) on RGB."""
    to_yiq = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], device=angle.device)
    turn = torch.zeros(len(angle), 3, 3, device=angle.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1] = angle.sin()
    turn[:, 1, 2] = -angle.sin()
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq
