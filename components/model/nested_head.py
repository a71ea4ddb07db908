"""The exact likelihood of a patch of many pixels: block by block, then pixel by pixel within a block."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.local_head import LocalHead, MaskedNetwork
from components.model.tokens import nested_order


class NestedHead(LocalHead):
    """p(patch | context) = Π_j p(block j | blocks < j, context). A block is factorised in the same way until it is
    small; then a head that all blocks share predicts its single pixels.

    Work and weights of one masked network over a patch grow with the square of its pixels; here the work grows with
    their number, and blocks share their weights, as in MEGABYTE's levels (Yu et al. 2023, arXiv 2305.07185). A block's
    context is what a masked network over it and its siblings makes of its parent's, and beside that the pixels left of
    the block and above it.

    Args:
        context_width: D of the patch's context.
        sides: of the patch and of the blocks nested in it, in pixels, in descending order (`nested_sides`).
        width: of a block's context.
        reads: I, numbers that the pixel head reads of a pixel.
        pixel_head: makes the head of the smallest blocks, of a context width and for so many pixels.
    """

    border: Tensor

    def __init__(
        self,
        context_width: int,
        sides: tuple[int, ...],
        width: int,
        reads: int,
        pixel_head: Callable[[int, int], LocalHead],
    ) -> None:
        super().__init__()
        self.sides = sides
        border = _border(sides)  # (n, 2 · side + 1)
        levels = []
        for outer, inner in pairwise(sides):
            levels.append(MaskedNetwork(context_width, (outer // inner) ** 2, inner**2 * reads, width))
            context_width = width
        self.levels = nn.ModuleList(levels)
        self.pixels = pixel_head(width + border.shape[1] * reads, sides[-1] ** 2)
        self.shape = (sides[0] ** 2, *self.pixels.shape[1:])
        self.register_buffer("border", border, persistent=False)

    def read(self, tokens: Tensor) -> Tensor:
        return self.pixels.read(tokens)

    def nll(self, context: Tensor, tokens: Tensor) -> Tensor:
        values = self.read(tokens)  # (..., S, I)
        contexts = context[..., None, :]  # (..., 1, D)
        for level, (outer, inner) in zip(self.levels, pairwise(self.sides), strict=True):
            known = values.unflatten(-2, (-1, (outer // inner) ** 2, inner**2)).flatten(-2)  # (..., n, k, s·I)
            contexts = level(contexts, known).flatten(-3, -2)  # (..., n·k, W)
        border = F.pad(values, (0, 0, 0, 1))[..., self.border, :].flatten(-2)  # (..., n, (2·side + 1)·I)
        blocks = tokens.unflatten(context.ndim - 1, (-1, self.pixels.shape[0]))  # (..., n, s, ...)
        nll = self.pixels.nll(torch.cat([contexts, border.to(contexts.dtype)], -1), blocks)
        return nll.flatten(-2)

    def log_probabilities(self, context: Tensor, tokens: Tensor, index: tuple[int, ...]) -> Tensor:
        values, place = self.read(tokens), index[0]
        for level, (outer, inner) in zip(self.levels, pairwise(self.sides), strict=True):
            first = place - place % outer**2  # of the block's parent
            known = values[..., first : first + outer**2, :].unflatten(-2, (-1, inner**2)).flatten(-2)  # (..., k, s·I)
            context = level(context, known, place % outer**2 // inner**2).squeeze(-2)  # (..., W)
        s = self.pixels.shape[0]
        block, within = divmod(place, s)
        border = F.pad(values, (0, 0, 0, 1))[..., self.border[block], :].flatten(-2)
        blocks = tokens.unflatten(context.ndim - 1, (-1, s)).select(context.ndim - 1, block)  # (..., s, ...)
        return self.pixels.log_probabilities(torch.cat([context, border], -1), blocks, (within, *index[1:]))


def _border(sides: tuple[int, ...]) -> Tensor:
    """For each of the smallest blocks, the places in the nested order of the pixels left of it, above it and in the
    corner between, (n, 2 · side + 1); S where the patch has none. All come before the block."""
    outer, side = sides[0], sides[-1]
    places = torch.full((outer + 1, outer + 1), outer**2)  # with a row above and a column to the left
    order = nested_order(sides)
    places[1 + order // outer, 1 + order % outer] = torch.arange(outer**2)
    corners = order[:: side**2]  # of the blocks, in their order
    borders = []
    for row, column in zip((corners // outer).tolist(), (corners % outer).tolist(), strict=True):
        around = places[row : row + side + 1, column : column + side + 1]
        borders.append(torch.cat([around[0], around[1:, 0]]))
    return torch.stack(borders)
