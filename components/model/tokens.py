"""Images as discrete tokens, grouped into patches: palette indices, or the 8-bit pixel values themselves."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from components.model.config import LARGEST_BLOCK

LEVELS = 256  # values of an 8-bit sub-pixel


def nested_sides(side: int) -> tuple[int, ...]:
    """Sides of a patch and of the blocks nested in it: divided by the smallest prime factor until they are small.

    16 → (16, 8, 4); a patch of up to 4×4 pixels, or of a prime side, is one block.
    """
    sides = [side]
    while sides[-1] > LARGEST_BLOCK:
        factor = next(k for k in range(2, sides[-1] + 1) if sides[-1] % k == 0)
        if factor == sides[-1]:
            break
        sides.append(sides[-1] // factor)
    return tuple(sides)


def nested_order(sides: tuple[int, ...]) -> Tensor:
    """The pixels of a patch (S,) by their number in its raster, blocks and pixels of a block in raster order.

    So the pixels of a block follow each other, and each pixel comes after those left of it, above it and between.
    """
    pixels = torch.arange(sides[0] ** 2).view(sides[0], sides[0])
    for inner in sides[1:]:
        # (..., outer, outer) → (..., blocks, inner, inner)
        pixels = pixels.unflatten(-1, (-1, inner)).unflatten(-3, (-1, inner)).transpose(-3, -2).flatten(-4, -3)
    return pixels.flatten()


class Tokenizer(nn.Module, ABC):
    """From images to tokens and back.

    Args:
        patch_size: side of a patch in pixels; a patch holds S = patch_size² pixels in the order of `nested_order`.
    """

    order: Tensor

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.nested = len(nested_sides(patch_size)) > 1
        self.register_buffer("order", nested_order(nested_sides(patch_size)), persistent=False)  # (S,)

    @abstractmethod
    def quantise(self, images: Tensor) -> Tensor:
        """Tokens (B, H, W, ...) of images (B, C, H, W) whose values lie in [0, 1]."""

    @abstractmethod
    def dequantise(self, tokens: Tensor) -> Tensor:
        """Pixels (..., C) in [0, 1] of tokens: the way back from `quantise`, channels last."""

    def patches(self, tokens: Tensor) -> Tensor:
        """Group tokens (B, H, W, ...) into patches (B, T, S, ...), which come in raster order."""
        p = self.patch_size
        grid = tokens.unflatten(2, (-1, p)).unflatten(1, (-1, p))  # (B, H/p, p, W/p, p, ...)
        patches = grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return patches[:, :, self.order] if self.nested else patches

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, T, S, ...) of images (B, C, H, W) whose values lie in [0, 1]."""
        return self.patches(self.quantise(images))

    def colours(self, tokens: Tensor) -> Tensor:
        """Square images (B, C, H, W) in [0, 1] of tokens (B, T, S, ...): the way back from `forward`."""
        p, side = self.patch_size, round(tokens.shape[1] ** 0.5)
        if self.nested:
            tokens = tokens[:, :, self.order.argsort()]
        grid = tokens.unflatten(1, (side, side)).unflatten(3, (p, p))  # (B, H/p, W/p, p, p, ...)
        grid = grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, H, W, ...)
        return self.dequantise(grid).permute(0, 3, 1, 2)


class PaletteTokenizer(Tokenizer):
    """The index of a palette's nearest colour, one a pixel, as in iGPT (Chen et al. 2020, "Generative pretraining from
    pixels", section 3.2).

    Args:
        palette: uint8 colours (K, C).
    """

    palette: Tensor

    def __init__(self, palette: Tensor, patch_size: int) -> None:
        super().__init__(patch_size)
        self.register_buffer("palette", palette.float() / 255)  # (K, C)

    def quantise(self, images: Tensor) -> Tensor:
        """Palette indices (B, H, W)."""
        pixels = images.float().permute(0, 2, 3, 1)  # (B, H, W, C)
        if self.palette.shape[1] == 1:
            # sorted grey levels: the nearest one is found by bisecting the midpoints between neighbours
            levels = self.palette[:, 0]
            return torch.bucketize(pixels[..., 0].contiguous(), (levels[1:] + levels[:-1]) / 2)
        # |x − c|² = |x|² − 2x·c + |c|², where |x|² is the same for all colours. In whole 8-bit levels float32 is exact,
        # so that a pixel midway between two colours gets the same token on every device and runtime.
        pixels, palette = (pixels * 255).round(), (self.palette * 255).round()
        distances = (palette**2).sum(1) - 2 * pixels @ palette.T  # (B, H, W, K)
        return distances.argmin(-1)

    def dequantise(self, tokens: Tensor) -> Tensor:
        """Colours (..., C) of palette indices (...)."""
        return self.palette[tokens]


class PixelTokenizer(Tokenizer):
    """The 8-bit values themselves, 0 … 255: C sub-pixels a pixel."""

    def quantise(self, images: Tensor) -> Tensor:
        """Values (B, H, W, C)."""
        return (images.float() * (LEVELS - 1)).round().long().permute(0, 2, 3, 1)

    def dequantise(self, tokens: Tensor) -> Tensor:
        """Pixels (..., C) of values (..., C)."""
        return tokens.float() / (LEVELS - 1)


def to_unit(images: Tensor) -> Tensor:
    """Pixels uint8 (B, H, W, C) as floats (B, C, H, W) in [0, 1]."""
    return images.permute(0, 3, 1, 2).float() / 255


def reduced(images: Tensor, factor: int) -> Tensor:
    """Images (B, C, H, W) in [0, 1] at 1/factor of their side: the mean of each square's 8-bit values, rounded.

    Sums of whole numbers are exact in float32, so that every device and runtime gives the same picture.
    """
    levels = (images.float() * (LEVELS - 1)).round()
    squares = levels.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))  # (B, C, H/f, f, W/f, f)
    return (squares.sum((3, 5)) / factor**2).round() / (LEVELS - 1)


def scaled(values: Tensor) -> Tensor:
    """8-bit values as float32 between −1 and 1."""
    return values.float() * (2 / (LEVELS - 1)) - 1
