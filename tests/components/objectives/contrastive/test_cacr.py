import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from components.objectives.contrastive.cacr.term import cacr


def weighted(costs: list[Tensor], slope: float) -> Tensor:
    """Σ softmax(slope · cost) · cost, with a gradient through the weights."""
    weights = [torch.exp(slope * cost) for cost in costs]
    return sum(w * c for w, c in zip(weights, costs, strict=True)) / sum(weights)


def naive(z: Tensor, alpha: float, beta: float, tau_positive: float, tau_negative: float) -> tuple[Tensor, Tensor]:
    """The paper's two terms, one query at a time."""
    views, images = z.shape[:2]
    attraction, repulsion = [], []
    for v in range(views):
        for i in range(images):
            own = [(z[v, i] - z[w, i]).square().sum() for w in range(views) if w != v]
            attraction.append(alpha * weighted(own, tau_positive))
            for w in range(views):
                if w != v:
                    others = [(z[v, i] - z[w, j]).square().sum() for j in range(images) if j != i]
                    repulsion.append(-beta * weighted(others, -tau_negative))
    return torch.stack(attraction).mean(), torch.stack(repulsion).mean()


@given(st.integers(2, 4), st.integers(2, 5), st.floats(0, 3), st.floats(0, 3), st.integers(0, 999))
def test_it_equals_a_naive_loop_weights_and_their_gradient_included(unit, views, images, positive, negative, seed):
    ours, theirs = (unit(views, images, seed=seed).requires_grad_() for _ in range(2))
    found, expected = cacr(ours, 0.7, 1.3, positive, negative), naive(theirs, 0.7, 1.3, positive, negative)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    sum(found).backward()
    sum(expected).backward()
    # as functions on the sphere: ours knows that projections have length 1
    tangents = [z.grad - (z.grad * z.detach()).sum(-1, keepdim=True) * z.detach() for z in (ours, theirs)]
    torch.testing.assert_close(*tangents, atol=1e-5, rtol=1e-3)


def test_farther_positives_and_nearer_negatives_weigh_more(unit):
    z = unit(4, 6)
    plain, weighed = cacr(z, 1, 1, 0, 0), cacr(z, 1, 1, 2, 2)
    assert weighed[0] > plain[0]  # more of the far ones in the mean distance
    assert -weighed[1] < -plain[1]
    torch.testing.assert_close(cacr(unit(2, 6), 1, 1, 0, 0)[0], cacr(unit(2, 6), 1, 1, 9, 9)[0])  # one positive alone


def test_equal_views_of_images_that_are_spread_evenly_are_the_minimum(unit):
    corners = F.normalize(torch.eye(6) - 1 / 6, dim=1).expand(3, -1, -1)
    attraction, repulsion = cacr(corners, 1, 1, 1, 0.9)
    assert attraction.item() == pytest.approx(0, abs=1e-5)
    assert repulsion.item() == pytest.approx(-2 * 6 / 5, rel=1e-5)  # all others are at the same distance
    for seed in range(20):
        assert sum(cacr(unit(3, 6, seed=seed), 1, 1, 1, 0.9)) > attraction + repulsion


def test_gradients_stay_finite_where_views_coincide():
    z = torch.ones(3, 4, 5).div(math.sqrt(5)).requires_grad_()
    sum(cacr(z, 1, 1, 1, 0.9)).backward()
    assert z.grad.isfinite().all()
