"""Random views of a batch of images, drawn and applied as tensors on the device that holds them.

The geometric transforms of an image fold into one affine grid, its colour transforms into one affine map of the
colour space, so that a view costs one resampling and one small matrix product; a blur is two more. The parameters come
back with the view: the decoder is told them (`Augmentation.condition`), the encoder never is.

Transforms and strengths are SimCLR's (Chen et al. 2020, appendix A) as torchvision's RandomResizedCrop, ColorJitter and
GaussianBlur implement them, and affine ones besides. What we changed: colours change in a fixed order, hue, saturation,
brightness, contrast, and are clamped once, after the last; hue is a rotation of the chroma plane instead of HSV's; the
side of a crop is drawn evenly instead of its area, and the ratio of its sides only on demand; a share of the views
stays as it is.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from components.data.config import AugmentationConfig

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
CHROMA = ((0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))  # I and Q of YIQ
BLUR_SIGMA = (0.1, 2.0)  # pixels; SimCLR's
SAMPLES_TOGETHER = 1 << 25  # numbers held at a time where views are cut out of finer images


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for n images, as differences from doing nothing: all zeros leave an image as it is."""

    geometry: Tensor  # (n, 2, 3): output → input coordinates in [-1, 1], minus the identity
    colour: Tensor  # (n, C, C): matrix on the colours, minus the identity
    contrast: Tensor  # (n,): factor on the distance from the image's mean luma, minus 1
    blur: Tensor | None = None  # (n,): standard deviation in pixels; None where no image is blurred

    @property
    def condition(self) -> Tensor:
        """The parameters as one vector an image (n, A)."""
        blur = torch.zeros_like(self.contrast) if self.blur is None else self.blur
        return torch.cat([self.geometry.flatten(1), self.colour.flatten(1), self.contrast[:, None], blur[:, None]], 1)

    def of(self, chosen: Tensor) -> "Augmentation":
        """What was drawn for some of the images, by their indices (m,)."""
        blur = None if self.blur is None else self.blur[chosen]
        return Augmentation(self.geometry[chosen], self.colour[chosen], self.contrast[chosen], blur)


def condition_size(channels: int) -> int:
    """Length A of an image's parameter vector."""
    return 6 + channels**2 + 2


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
    mirror = 1.0 - 2.0 * (share(0.5) & config.flip).float()
    scale = uniform(config.crop_min_side, 1.0)[:, None].expand(n, 2)  # of width and height
    if config.crop_aspect > 1:
        stretch = torch.exp(uniform(-0.5, 0.5) * math.log(config.crop_aspect))
        scale = (scale * torch.stack([stretch, 1 / stretch], 1)).clamp(max=1)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    slant = identity2.repeat(n, 1, 1)
    slant[:, 0, 1] = shear
    linear = rotation @ slant * scale[:, None]
    linear[:, :, 0] *= mirror[:, None]
    # a crop of sides `scale` may lie anywhere inside; `translate` moves it further, in shares of the side (2 units)
    shift = uniform(-1, 1, 2) * (1 - scale) + uniform(-1, 1, 2) * 2 * config.translate
    geometry = torch.cat([linear - identity2, shift[:, :, None]], 2)

    jitter = share(config.jitter_probability).float()
    brightness = 1 + jitter * uniform(-1, 1) * config.brightness
    contrast = jitter * uniform(-1, 1) * config.contrast
    identity = torch.eye(channels, device=device).expand(n, channels, channels)
    colour = identity
    if channels == 3:
        grey = share(config.greyscale_probability).float()
        saturation = (1 + jitter * uniform(-1, 1) * config.saturation) * (1 - grey)
        to_luma = _yiq(device)[0][0].expand(3, 3)  # every row gives the luma
        hue = _hue_rotation(jitter * uniform(-1, 1) * config.hue * 2 * math.pi)
        colour = (to_luma + saturation[:, None, None] * (identity - to_luma)) @ hue
    colour = colour * brightness[:, None, None]

    kept = (~share(config.unaltered_probability)).float()
    blur = share(config.blur_probability).float() * uniform(*BLUR_SIGMA) * kept if config.blur_probability else None
    colour = (colour - identity) * kept[:, None, None]
    return Augmentation(geometry * kept[:, None, None], colour, contrast * kept, blur)


def apply(images: Tensor, drawn: Augmentation, padding: str, finer: Tensor | None = None) -> Tensor:
    """The views (n, C, H, W) in [0, 1] of images (n, C, H, W) in [0, 1]; padding as in `grid_sample`.

    `finer`, uint8 (b, S, S, C), are the same images with more pixels, where images are b of them n/b times over: views
    are then cut out of these, but for those whose geometry does not change.
    """
    channels = images.shape[1]
    geometry = drawn.geometry + torch.eye(2, 3, device=images.device)
    if finer is None:
        grid = F.affine_grid(geometry, list(images.shape), align_corners=False)
        views = F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    else:
        moved = drawn.geometry.flatten(1).any(1)[:, None, None, None]
        views = torch.where(moved, _cut_out(finer, geometry, images.shape[2], padding), images)
    matrix = drawn.colour + torch.eye(channels, device=images.device)
    luma = _yiq(images.device)[0][0] if channels == 3 else torch.ones(1, device=images.device)
    mean = torch.einsum("c,ncd,nd->n", luma, matrix, views.mean((2, 3)))  # luma of the coloured image
    matrix = (1 + drawn.contrast)[:, None, None] * matrix
    views = torch.einsum("ncd,ndhw->nchw", matrix, views)
    views = views.sub_((drawn.contrast * mean)[:, None, None, None]).clamp_(0, 1)
    if drawn.blur is not None:
        rows, columns = (_blur_matrix(drawn.blur, size)[:, None] for size in views.shape[2:])
        views = rows @ views @ columns.transpose(2, 3)
    return views


def _cut_out(finer: Tensor, geometry: Tensor, size: int, padding: str) -> Tensor:
    """Views (n, C, size, size) of n/b times over uint8 images (b, S, S, C), antialiased: each pixel is the mean of a
    square of samples, which lie no further apart than the image's pixels where the whole of it is seen."""
    side, channels = finer.shape[1], finer.shape[3]
    samples = math.ceil(side / size)
    together = max(1, SAMPLES_TOGETHER // (channels * (samples * size) ** 2))
    views = []
    for of_a_view in geometry.split(len(finer)):
        for pixels, its in zip(finer.split(together), of_a_view.split(together), strict=True):
            images = pixels.permute(0, 3, 1, 2).float() / 255
            grid = F.affine_grid(its, [len(its), channels, samples * size, samples * size], align_corners=False)
            sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
            views.append(F.avg_pool2d(sampled, samples))
    return torch.cat(views)


def _blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Gaussian blurs along a side of `size` pixels as matrices (n, size, size). The kernel reaches a twentieth of the
    side each way (SimCLR's), at least a pixel; the image is reflected at its edges."""
    reach = max(1, round(size / 20))
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = torch.softmax(-0.5 * (offset / sigma.clamp_min(1e-3)[:, None]) ** 2, 1)  # (n, 2·reach + 1)
    place = (torch.arange(size, device=sigma.device)[:, None] + offset).abs()  # (size, 2·reach + 1)
    place = torch.minimum(place, 2 * (size - 1) - place)
    return torch.einsum("nk,ikj->nij", kernel, F.one_hot(place, size).float())


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotation of the chroma plane (I, Q of YIQ) by an angle in radians, as matrices (n, 3, 3) on RGB."""
    to_yiq, from_yiq = _yiq(angle.device)
    turn = torch.zeros(len(angle), 3, 3, device=angle.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1] = angle.sin()
    turn[:, 1, 2] = -angle.sin()
    return from_yiq @ turn @ to_yiq


@functools.cache
def _yiq(device: torch.device) -> tuple[Tensor, Tensor]:
    """The matrices from RGB to YIQ and back (3, 3). Kept, because making them anew would wait for the GPU."""
    to_yiq = torch.tensor([LUMA, *CHROMA])
    return to_yiq.to(device), torch.linalg.inv(to_yiq).to(device)
