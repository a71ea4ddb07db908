"""Images as discrete tokens: each pixel becomes the index of its nearest palette colour, pixels group into patches."""

import torch
from torch import Tensor, nn


class Tokenizer(nn.Module):
    """Nearest colour of a palette, as in iGPT (Chen et al. 2020, "Generative pretraining from pixels", section 3.2).

    Args:
        palette: uint8 colours (K, C).
        patch_size: side of a patch in pixels; a patch holds S = patch_size² tokens in raster order.
    """

    palette: Tensor

    def __init__(self, palette: Tensor, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.register_buffer("palette", palette.float() / 255)  # (K, C)

    def quantise(self, images: Tensor) -> Tensor:
        """Palette indices (B, H, W) of images (B, C, H, W) whose values lie in [0, 1]."""
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

    def patches(self, indices: Tensor) -> Tensor:
        """Group indices (B, H, W) into patches (B, T, S), both in raster order."""
        p = self.patch_size
        grid = indices.unflatten(2, (-1, p)).unflatten(1, (-1, p))  # (B, H/p, p, W/p, p)
        return grid.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, T, S)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, T, S) of images (B, C, H, W) whose values lie in [0, 1]."""
        return self.patches(self.quantise(images))

    def colours(self, tokens: Tensor) -> Tensor:
        """Square images (B, C, H, W) in [0, 1] of tokens (B, T, S): the way back from `forward`."""
        p, side = self.patch_size, round(tokens.shape[1] ** 0.5)
        grid = tokens.unflatten(1, (side, side)).unflatten(3, (p, p))  # (B, H/p, W/p, p, p)
        indices = grid.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, H, W)
        return self.palette[indices].permute(0, 3, 1, 2)


def to_unit(images: Tensor) -> Tensor:
    """Pixels uint8 (B, H, W, C) as floats (B, C, H, W) in [0, 1]."""
    return images.permute(0, 3, 1, 2).float() / 255
