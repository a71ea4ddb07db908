"""The processes that share a batch: every one holds the whole model and an equal share of the images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process among `size`; alone by default. Process `rank` has images rank·b … (rank + 1)·b − 1 of a batch."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process evaluates, reports and writes: one does."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """This process's images of a batch of so many."""
        b = batch // self.size
        return slice(self.rank * b, (self.rank + 1) * b)

    def gather(self, mine: Tensor) -> Tensor:
        """Every process's (V, b, ...) as one (V, B, ...) in the batch's order. Carries no gradient."""
        if self.size == 1:
            return mine.detach()
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyone, mine.detach().contiguous())
        return torch.cat(everyone, 1)

    def of_leader(self, value: float) -> float:
        """The leading process's value, on every process."""
        if self.size == 1:
            return value
        device = torch.device("cuda", self.rank) if dist.get_backend() == "nccl" else torch.device("cpu")
        shared = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes. All tensors must be of one type, and a tensor's shape the
        same on every process."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))
