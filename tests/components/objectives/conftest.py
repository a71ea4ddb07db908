from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@pytest.fixture(scope="session")
def unit() -> Callable[..., Tensor]:
    """Vectors of unit length: unit(2, 4) is (2, 4, 6)."""

    def draw(*shape: int, size: int = 6, seed: int = 0) -> Tensor:
        return F.normalize(torch.randn(*shape, size, generator=torch.Generator().manual_seed(seed)), dim=-1)

    return draw


@pytest.fixture(scope="session")
def agree() -> Callable[..., None]:
    """agree(ours, theirs, x, y) checks that two losses of x and y are equal, and so are their gradients at x and y."""

    def check(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
        found = []
        for loss in (ours, theirs):
            given = [x.clone().requires_grad_() for x in inputs]
            value = loss(*given)
            found.append([value.detach(), *torch.autograd.grad(value, given)])
        torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)

    return check


@pytest.fixture(scope="session")
def moved() -> Callable[..., nn.Module]:
    """A module with every parameter moved at random, in place: fresh ones have zeros that would hide mistakes."""

    def move(module: nn.Module, by: float = 0.4) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += by * torch.randn(parameter.shape, generator=generator)
        return module

    return move
