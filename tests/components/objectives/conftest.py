from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F


@pytest.fixture(scope="session")
def unit() -> Callable[..., Tensor]:
    """Vectors of unit length: unit(2, 4) is (2, 4, 6)."""

    def draw(*shape: int, size: int = 6, seed: int = 0) -> Tensor:
        return F.normalize(torch.randn(*shape, size, generator=torch.Generator().manual_seed(seed)), dim=-1)

    return draw
