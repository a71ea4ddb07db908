"""sRGB and CIE L*a*b* (CIE 15:2004, D65 white; sRGB by IEC 61966-2-1)."""

import torch
from torch import Tensor

TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
EDGE = 6 / 29  # below its cube the cube root is a line


def to_lab(rgb: Tensor) -> Tensor:
    """L* (0 to 100), a* and b* (..., 3, H, W) of sRGB in [0, 1] (..., 3, H, W)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = _matrix(rgb)
    xyz = torch.einsum("ij,...jhw->...ihw", matrix / matrix.sum(1, keepdim=True), linear)  # of white: ones
    x, y, z = torch.where(xyz > EDGE**3, xyz.clamp(min=EDGE**3) ** (1 / 3), xyz / (3 * EDGE**2) + 4 / 29).unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def from_lab(lab: Tensor) -> Tensor:
    """sRGB in [0, 1] (..., 3, H, W) of L*, a* and b* (..., 3, H, W); colours that no screen shows are clipped."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], -3)
    xyz = torch.where(roots > EDGE, roots**3, 3 * EDGE**2 * (roots - 4 / 29))
    matrix = _matrix(lab)
    linear = torch.einsum("ij,...jhw->...ihw", (matrix / matrix.sum(1, keepdim=True)).inverse(), xyz).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def _matrix(like: Tensor) -> Tensor:
    return torch.tensor(TO_XYZ, dtype=like.dtype, device=like.device)
