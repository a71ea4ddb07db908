"""PixelCNN++'s two streams of gated convolutions (Salimans et al. 2017, arXiv 1701.05517) as a causal stack.

It takes the place of a transformer's stack, and keeps its promise: position t of the output depends on positions ≤ t of
the input alone. With patches of one pixel and the logistic mixture it is the paper's model on the grid of pixels; with
larger patches it convolves the grid of patches.

The patches lie on their grid twice. In the vertical stream a cell knows the rows above it, in the horizontal one what
comes before it in its own row; that one reads the other in every block, so that no earlier patch stays unseen (van den
Oord et al. 2016, arXiv 1606.05328, section 2.2). Streams are shifted against the patches, and padded above and to the
left, so that no kernel needs a mask. With each block a cell sees two rows and two columns farther, in the rows above to
both sides: an encoder of L blocks has no blind spot on grids of up to 2L + 1 columns.

What we left out: down- and upsampling with their short-cuts (sections 2.3 and 2.4), by which the paper sees all of
32×32 pixels, and dropout. What we changed: patches enter with an embedding of their position, so that no channel of
ones has to mark the image's edge; a block normalises its input over the channels of a cell, in place of the weights,
whose scale is the optimizer's business; a stack adds to its input, as a transformer's does; the decoder's streams begin
anew from the encoder's output, so that features and augmentation have one place to attach.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.model.transformer import Cache


class Convolution(nn.Linear):
    """A convolution of grids (B, H, W, C) whose kernel sees two rows, its cell's and the one above, and of each the
    cell's column and so many to the left and to the right.

    The kernel is one matrix (filters, C · 2 · columns): Muon takes matrices, and of a kernel this one.
    """

    def __init__(self, channels: int, filters: int, left: int, right: int) -> None:
        self.kernel = (channels, 2, left + 1 + right)
        super().__init__(channels * 2 * (left + 1 + right), filters)
        self.edges = (0, 0, left, right, 1, 0)  # of channels, columns, rows

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, self.edges).permute(0, 3, 1, 2)
        return F.conv2d(padded, self.weight.unflatten(1, self.kernel), self.bias).permute(0, 2, 3, 1)


class GatedResidual(nn.Module):
    """x + a · σ(b), where a and b are two convolutions away from x (section 2.5 and the authors' `gated_resnet`).

    With `beside`, the channels of another stream enter half-way.
    """

    def __init__(self, filters: int, left: int, right: int, *, beside: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(filters)
        self.first = Convolution(2 * filters, filters, left, right)
        self.beside = nn.Linear(2 * filters, filters, bias=False) if beside else None
        self.second = Convolution(2 * filters, 2 * filters, left, right)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        hidden = self.first(concat_elu(self.norm(x)))
        if self.beside is not None and beside is not None:
            hidden = hidden + self.beside(concat_elu(beside))
        values, gates = self.second(concat_elu(hidden)).chunk(2, -1)
        return x + values * gates.sigmoid()


def concat_elu(x: Tensor) -> Tensor:
    """ELU of (..., C) and of its negative: (..., 2C)."""
    return F.elu(torch.cat([x, -x], -1))


class Block(nn.Module):
    """A gated residual block of each stream; the horizontal one reads the vertical one."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.vertical = GatedResidual(filters, 1, 1, beside=False)
        self.horizontal = GatedResidual(filters, 1, 0, beside=True)

    def forward(self, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
        vertical = self.vertical(vertical)
        return vertical, self.horizontal(horizontal, vertical)


class PixelCNN(nn.Module):
    """A stack on (B, T, D) like a transformer's, position t sees positions ≤ t alone; see above.

    Args:
        side: patches in a row of the image. Position t stands for patch t of the raster, and has seen those before it.
        filters: channels of each stream.
    """

    def __init__(self, width: int, filters: int, layers: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.enter = nn.Linear(width, 2 * filters)
        self.blocks = nn.ModuleList(Block(filters) for _ in range(layers))
        self.leave = nn.Linear(filters, width)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        new = x.shape[1]
        if cache is not None:
            x = cache.extend(x)
        vertical, horizontal = self.streams(x)
        for block in self.blocks:
            vertical, horizontal = block(vertical, horizontal)
        return self.output(x, horizontal)[:, -new:]

    def after_each_block(self, x: Tensor) -> Iterator[Tensor]:
        """What the output (B, T, D) would be if each block were the last."""
        vertical, horizontal = self.streams(x)
        for block in self.blocks:
            vertical, horizontal = block(vertical, horizontal)
            yield self.output(x, horizontal)

    def streams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two streams (B, H, W, F) before the first block."""
        above, before = self.enter(x).chunk(2, -1)
        missing = -x.shape[1] % self.side  # positions begin a row that they need not end
        # what has just seen the patch above: the position a row back, less one
        above = F.pad(above, (0, 0, self.side - 1, 0))[:, : x.shape[1] + missing]
        before = F.pad(before, (0, 0, 0, missing))
        return above.unflatten(1, (-1, self.side)), before.unflatten(1, (-1, self.side))

    def output(self, x: Tensor, horizontal: Tensor) -> Tensor:
        """The stack's output (B, T, D) for its input (B, T, D) and the horizontal stream."""
        return x + self.leave(F.elu(horizontal.flatten(1, 2)[:, : x.shape[1]]))
