import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from components.errors import ConfigError
from components.objectives.base import Batch, TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.instdisc.term import instance_softmax
from components.objectives.contrastive.pirl import PIRLConfig
from components.objectives.contrastive.pirl.term import PIRL, found_in_memory, shuffle_tiles
from components.objectives.objective import build_objective

DATA = TrainingSet(np.zeros((10, 4, 4, 1), np.uint8))


@pytest.fixture
def make_term(make_model):
    def make(**settings) -> PIRL:
        torch.manual_seed(1)
        return PIRL(PIRLConfig(**settings), make_model(1, 4, projection_size=6), DATA)

    return make


def batch(z: Tensor, images: list[int], seed: int = 0) -> Batch:
    return Batch(z, z, torch.tensor(images), torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.integers(2, 9), st.floats(0.1, 2), st.integers(0, 999))
def test_it_equals_a_naive_loop(unit, images, others, temperature, seed):
    z, own, memory = unit(images, seed=seed), unit(images, seed=seed + 1), unit(others, seed=seed + 2)
    itself = torch.arange(images)[:, None] == torch.arange(others)  # the others' first are these images
    losses = []
    for i in range(images):
        match = math.exp(float(own[i] @ z[i]) / temperature)
        rest = [math.exp(float(memory[n] @ z[i]) / temperature) for n in range(others) if n != i]
        losses.append(-math.log(match / (match + sum(rest))))
    found = found_in_memory(z, own, memory, itself, temperature).item()
    assert found == pytest.approx(sum(losses) / images, rel=1e-4)


def test_loss_and_gradient_equal_the_public_librarys(agree, unit):
    from pytorch_metric_learning.losses import NTXentLoss

    bank, all_images, images = unit(9, seed=1), torch.arange(9), torch.tensor([3, 0, 8, 5])
    itself = images[:, None] == all_images
    agree(
        lambda z: found_in_memory(F.normalize(z, dim=1), bank[images], bank, itself, 0.3),
        lambda z: NTXentLoss(0.3)(z, images, ref_emb=bank, ref_labels=all_images),
        3 * unit(4),
    )


def test_among_all_images_it_is_the_instance_softmax_of_both_views(make_term, unit):
    term, z = make_term(jigsaw_weight=0.3, temperature=0.4), unit(2, 3)
    bank, images = term.bank.rows.clone(), torch.tensor([7, 2, 5])
    loss, metrics = term(batch(z, [7, 2, 5]))
    image, jigsaw = (instance_softmax(view[None], bank, images, 0.4) for view in z)
    torch.testing.assert_close(loss, 0.3 * jigsaw + 0.7 * image)
    torch.testing.assert_close([metrics["image_loss"], metrics["jigsaw_loss"]], [image, jigsaw])


def test_sampled_negatives_come_from_the_steps_generator_and_leave_out_the_image(make_term, unit):
    z = unit(2, 3)
    chosen = torch.randint(10, (8,), generator=torch.Generator().manual_seed(4))
    images = [int(chosen[0]), int(chosen[3]), 9]  # two of the negatives are these images themselves
    term = make_term(negatives=8)
    bank = term.bank.rows.clone()
    loss, _ = term(batch(z, images, seed=4))
    itself = torch.tensor(images)[:, None] == chosen
    expected = [found_in_memory(view, bank[images], bank[chosen], itself, 0.07) for view in z]
    torch.testing.assert_close(loss, sum(expected) / 2)
    assert not torch.equal(make_term(negatives=8)(batch(z, images, seed=5))[0], loss)


def test_the_bank_remembers_the_image_and_not_its_jigsaw(make_term, make_model, unit):
    term, z = make_term(momentum=0.8), unit(2, 2).requires_grad_()
    before = term.bank.rows.clone()
    loss, _ = term(batch(z, [7, 2]))
    loss.backward()
    term.after_step(make_model(1, 4), 0.1)
    bank = term.bank.rows
    for row, image in enumerate([7, 2]):
        torch.testing.assert_close(bank[image], F.normalize(0.8 * before[image] + 0.2 * z[0, row], dim=0).detach())
    rest = [i for i in range(10) if i not in (2, 7)]
    assert torch.equal(bank[rest], before[rest])
    assert z.grad.abs().sum(-1).min() > 0
    assert bank.grad is None


@pytest.mark.parametrize("grid", [2, 4])
def test_tiles_change_places(grid):
    images = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    order = torch.stack([torch.arange(grid**2).roll(1), torch.arange(grid**2)])
    shuffled, side = shuffle_tiles(images, order), 8 // grid
    assert torch.equal(shuffled[1], images[1])
    for place in range(grid**2):
        there, (y, x) = int(order[0, place]), divmod(place, grid)
        v, u = divmod(there, grid)
        found = shuffled[0, :, y * side : (y + 1) * side, x * side : (x + 1) * side]
        assert torch.equal(found, images[0, :, v * side : (v + 1) * side, u * side : (u + 1) * side])


def test_the_second_view_is_cut_up_whole_patches_at_a_time(make_term, make_model):
    term, model = make_term(grid=2), make_model(2, 4)
    drawn = term.draw(6, torch.Generator().manual_seed(0))
    assert drawn.shape == (6, 4)
    assert torch.equal(drawn.sort(1).values, torch.arange(4).expand(6, -1))
    assert len({tuple(order) for order in drawn.tolist()}) > 3
    views = torch.rand(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    altered = term.alter(views, drawn)
    assert torch.equal(altered[0], views[0])
    tokens, shuffled = model.tokenizer(views[1]), model.tokenizer(altered[1])  # (6, 4, 4): a tile is a patch
    assert torch.equal(shuffled, tokens[torch.arange(6)[:, None], drawn])


def test_a_grid_that_does_not_fit_is_refused(make_model):
    with pytest.raises(ConfigError, match=r"contrastive\.grid: .* 3 does not divide the 4 a side\. .* does: 2, 4"):
        build_objective(VariantConfig(0, 1, contrastive=PIRLConfig(grid=3)), make_model(1, 4), DATA, 0)
    for wrong in ({"grid": 1}, {"jigsaw_weight": 1.5}, {"momentum": 1}, {"negatives": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PIRLConfig(**wrong)
