"""Squares cut out of views, as some terms compare them."""

import torch
from torch import Tensor
from torch.nn import functional as F


def crop(images: Tensor, place: Tensor, side: float) -> Tensor:
    """Squares of `side` of the image's side, brought back to its size: (b, C, H, W) of images (b, C, H, W) in places
    (b, 2), x and y, between 0 (at the left or upper edge) and 1."""
    shift = (2 * place - 1) * (1 - side)  # of the centre; an image reaches from −1 to 1
    scale = side * torch.eye(2, device=images.device).expand(len(images), 2, 2)
    grid = F.affine_grid(torch.cat([scale, shift[:, :, None]], 2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
