import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from components.objectives.contrastive.nt_xent.term import nt_xent

seeds = st.integers(0, 2**32 - 1)
batches = st.integers(2, 9)
temperatures = st.floats(0.05, 5)


def drawn(images: int, seed: int = 0, size: int = 6, views: int = 2) -> Tensor:
    """Projections (V·B, P) of unit length."""
    return F.normalize(torch.randn(views * images, size, generator=torch.Generator().manual_seed(seed)), dim=1)


def naive(z: Tensor, temperature: float, views: int = 2) -> float:
    """Equation 1 of SimCLR, one pair of views of an image at a time."""
    n, images, pairs = len(z), len(z) // views, []
    for i in range(n):
        others = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in range(n) if a != i)
        for positive in (j for j in range(n) if j % images == i % images and j != i):
            pairs.append(-math.log(math.exp(float(z[i] @ z[positive]) / temperature) / others))
    assert len(pairs) == images * views * (views - 1)
    return sum(pairs) / len(pairs)


@given(batches, temperatures, seeds, st.integers(2, 4))
def test_it_equals_a_naive_loop(images, temperature, seed, views):
    z = drawn(images, seed, views=views).double()
    assert nt_xent(z, temperature, views).item() == pytest.approx(naive(z, temperature, views), rel=1e-4, abs=1e-5)


def test_two_views_are_scored_as_simclr_wrote_it():
    """Bit for bit the one cross-entropy against the other view."""
    z = drawn(16)
    logits = (z @ z.T / 0.2).masked_fill(torch.eye(32, dtype=torch.bool), float("-inf"))
    assert torch.equal(nt_xent(z, 0.2), F.cross_entropy(logits, torch.arange(32).roll(16)))


def test_more_views_are_scored_as_supcon_does_where_each_image_is_a_class(agree):
    from pytorch_metric_learning.losses import SupConLoss

    agree(
        lambda z: nt_xent(F.normalize(z, dim=1), 0.3, views=4),  # theirs normalises inside
        lambda z: SupConLoss(0.3)(z, torch.arange(8).repeat(4)),
        3 * drawn(8, views=4),
    )


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_loss_and_gradient_equal_the_public_librarys(agree, temperature):
    from pytorch_metric_learning.losses import NTXentLoss

    agree(
        lambda z: nt_xent(F.normalize(z, dim=1), temperature),
        lambda z: NTXentLoss(temperature)(z, torch.arange(16).repeat(2)),
        3 * drawn(16),
    )


@given(batches, temperatures, seeds)
def test_the_order_of_images_and_of_views_does_not_matter(images, temperature, seed):
    z = drawn(images, seed)
    loss = nt_xent(z, temperature).item()
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    assert nt_xent(torch.cat([z[:images][order], z[images:][order]]), temperature).item() == pytest.approx(
        loss, rel=1e-4
    )
    assert nt_xent(z.roll(images, 0), temperature).item() == pytest.approx(loss, rel=1e-4)


@given(batches, temperatures, seeds)
def test_a_rotation_of_the_space_does_not_matter(images, temperature, seed):
    z = drawn(images, seed)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))[0]
    assert nt_xent(z @ rotation, temperature).item() == pytest.approx(nt_xent(z, temperature).item(), rel=1e-3)


@given(batches, temperatures, seeds)
def test_nothing_beats_equal_views_of_images_that_are_spread_evenly(images, temperature, seed):
    """The minimum: both views of an image coincide, and images stand at the corners of a regular simplex."""
    corners = F.normalize(torch.eye(images) - 1 / images, dim=1)
    best = nt_xent(corners.repeat(2, 1), temperature).item()
    bound = math.log1p((2 * images - 2) * math.exp(-images / ((images - 1) * temperature)))
    assert best == pytest.approx(bound, rel=1e-3, abs=1e-5)
    assert nt_xent(drawn(images, seed), temperature).item() >= best - 1e-5


def test_swapped_positives_cost_more():
    z = F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    right, wrong = torch.cat([z, z]), torch.cat([z, z.roll(1, 0)])
    assert nt_xent(right, 0.2) < nt_xent(wrong, 0.2) - 1


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 0.2, 1e4])
@pytest.mark.parametrize("kind", ["random", "all equal", "opposite views"])
def test_gradients_stay_finite(temperature, kind):
    z = drawn(8)
    if kind == "all equal":
        z = z[:1].repeat(16, 1)
    if kind == "opposite views":
        z = torch.cat([z[:8], -z[:8]])
    z.requires_grad_()
    loss = nt_xent(z, temperature)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_bfloat16_projections_are_scored_in_float32():
    z = drawn(8).bfloat16()
    loss = nt_xent(z, 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive(z.double(), 0.1), rel=1e-4)
