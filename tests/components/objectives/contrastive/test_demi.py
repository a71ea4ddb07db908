import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.demi import DEMIConfig
from components.objectives.contrastive.demi.term import DEMI, conditional_info_nce
from components.objectives.parts.cropping import crop

DATA = TrainingSet(np.zeros((5, 4, 4, 1), np.uint8))


@pytest.fixture
def term(make_model) -> DEMI:
    torch.manual_seed(0)
    return DEMI(DEMIConfig(temperature=0.4), make_model(2, 4, projection_size=6), DATA)


def matrices(images: int, seed: int) -> tuple[Tensor, Tensor]:
    scores, likely = torch.randn(2, images, images, generator=torch.Generator().manual_seed(seed))
    return scores.requires_grad_(), likely.requires_grad_()


@given(st.integers(2, 6), st.integers(0, 999))
def test_it_equals_a_naive_loop(images, seed):
    scores, likely = (matrix.detach() for matrix in matrices(images, seed))
    losses = []
    for i in range(images):
        others = [k for k in range(images) if k != i]
        total = sum(math.exp(float(likely[i, k])) for k in others)
        negative = sum(math.exp(float(likely[i, k])) / total * math.exp(float(scores[i, k])) for k in others)
        match = math.exp(float(scores[i, i]))
        losses.append(-math.log(match / (match + (images - 1) * negative)))
    assert conditional_info_nce(scores, likely).item() == pytest.approx(sum(losses) / images, rel=1e-4)


def test_a_part_that_tells_nothing_leaves_info_nce():
    scores, _ = matrices(6, 0)
    found = conditional_info_nce(scores, torch.zeros(6, 6))
    torch.testing.assert_close(found, F.cross_entropy(scores, torch.arange(6)))


def test_what_the_part_rules_out_is_no_negative():
    scores, _ = matrices(4, 0)
    ruled_out = torch.full((4, 4), -1e4)
    ruled_out[torch.arange(4), (torch.arange(4) + 1) % 4] = 0  # one candidate is left for each
    left = scores[torch.arange(4), (torch.arange(4) + 1) % 4]
    expected = F.softplus(left + math.log(3) - scores.diagonal()).mean()
    torch.testing.assert_close(conditional_info_nce(scores, ruled_out), expected)


def test_the_weights_carry_no_gradient():
    scores, likely = matrices(5, 1)
    conditional_info_nce(scores, likely).backward()
    assert scores.grad.abs().min() > 0
    assert likely.grad is None


def test_with_the_true_critics_it_estimates_the_conditional_information():
    """Where x is two independent coins, x′ the first of them and y a copy of x, I(x; y | x′) is log 2."""
    images = 4000
    coins = torch.randint(2, (images, 2), generator=torch.Generator().manual_seed(0))
    same = (coins[:, None] == coins).float()  # (B, B, 2)
    likely = torch.log(2 * same[..., 0] + 1e-12)  # log p(y | x′) / p(y)
    scores = torch.log(2 * same[..., 1] + 1e-12)  # log p(y | x) / p(y | x′), where p(y | x′) is not 0
    bound = math.log(images) - conditional_info_nce(scores, likely).item()
    assert bound == pytest.approx(math.log(2), abs=0.02)


def test_the_loss_is_that_of_both_steps(term, unit):
    z = unit(3, 5).requires_grad_()
    features = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss, metrics = term(Batch(features, z, torch.arange(5), torch.Generator()))
    likely = z[2] @ z[1].T / 0.4
    first = F.cross_entropy(likely, torch.arange(5))
    second = conditional_info_nce(z[0] @ F.normalize(term.head(features[1]), dim=1).T / 0.4, likely)
    torch.testing.assert_close(loss, first + second)
    torch.testing.assert_close([metrics["part_loss"], metrics["conditional_loss"]], [first.detach(), second.detach()])
    loss.backward()
    assert z.grad.abs().sum(-1).min() > 0
    assert (features.grad.abs().sum((1, 2)) > 0).tolist() == [False, True, False]


def test_the_third_view_is_a_crop_of_the_first(term):
    views = torch.rand(3, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    altered = term.alter(views, term.draw(5, torch.Generator().manual_seed(1)))
    assert torch.equal(altered[:2], views[:2])
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])  # x, then y
    found = crop(views[0, :3], corners, 0.5)
    for image, rows, columns in (
        (0, slice(0, 4), slice(0, 4)),
        (1, slice(4, 8), slice(4, 8)),
        (2, slice(0, 4), slice(4, 8)),
    ):
        there = F.interpolate(
            views[0, image : image + 1, :, rows, columns], scale_factor=2, mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(found[image, :, 1:-1, 1:-1], there[0, :, 1:-1, 1:-1])  # edges see their neighbours


def test_a_part_is_less_than_the_whole():
    for ratio in (0, 1):
        with pytest.raises(ValueError, match="crop_ratio must lie between 0 and 1"):
            DEMIConfig(crop_ratio=ratio)
    assert VariantConfig(1, 1, contrastive=DEMIConfig()).own_views == 3
