"""A memory of the training set: a vector for each image, which moves on with every batch (Wu et al. 2018,
arXiv 1805.01978, section 3.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemoryBank(nn.Module):
    """A moving average of the vectors of each image, of unit length.

    What a batch brings is taken in after its step: the backward pass reads the rows as they were.

    Args:
        rows: the first ones (N, P).
        momentum: what a row keeps of itself.
    """

    rows: Tensor  # (N, P)

    def __init__(self, rows: Tensor, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("rows", rows)
        self._latest: tuple[Tensor, Tensor] | None = None

    def remember(self, images: Tensor, vectors: Tensor) -> None:
        """Keep the vectors (B, P) of these images (B,) until the step is over."""
        self._latest = images, vectors.detach()

    def after_step(self) -> None:
        """Take in what was remembered last."""
        assert self._latest is not None, "a step remembers a batch"
        (images, vectors), self._latest = self._latest, None
        old = self.rows[images]
        self.rows[images] = F.normalize(self.momentum * old + (1 - self.momentum) * vectors, dim=1)


def random_directions(count: int, size: int) -> Tensor:
    """Vectors of unit length (count, size)."""
    return F.normalize(torch.randn(count, size), dim=1)
