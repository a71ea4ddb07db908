import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from components.objectives.base import Batch, TrainingSet
from components.objectives.contrastive.instdisc import InstDiscConfig
from components.objectives.contrastive.instdisc.term import InstDisc, instance_softmax, nce

DATA = TrainingSet(np.zeros((10, 2, 2, 1), np.uint8))


@pytest.fixture
def model(make_model):
    return make_model(projection_size=6)


def batch(z: Tensor, images: list[int], seed: int = 0) -> Batch:
    return Batch(z, z, torch.tensor(images), torch.Generator().manual_seed(seed))


def naive(f: Tensor, own: Tensor, noise: Tensor, temperature: float, z: float, images: int) -> float:
    """Equations 4 to 7 as they are written, one view at a time; 1 / N is the noise's probability of an image."""
    m, losses = len(noise), []
    for v in range(len(f)):
        for i in range(len(own)):
            p = math.exp(float(own[i] @ f[v, i]) / temperature) / z
            loss = -math.log(p / (p + m / images))
            for other in noise:
                p = math.exp(float(other @ f[v, i]) / temperature) / z
                loss -= math.log((m / images) / (p + m / images))
            losses.append(loss)
    return sum(losses) / len(losses)


@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.floats(0.1, 2), st.floats(1, 50), st.integers(0, 999)
)
def test_it_equals_a_naive_loop(unit, views, images, noise, temperature, z, seed):
    f, own, others = unit(views, images, seed=seed), unit(images, seed=seed + 1), unit(noise, seed=seed + 2)
    found = nce(f, own, others, temperature, torch.tensor(math.log(z)), 40).item()
    assert found == pytest.approx(naive(f.double(), own.double(), others.double(), temperature, z, 40), rel=1e-4)


@given(st.integers(1, 3), st.integers(1, 5), st.floats(0.1, 2), st.integers(0, 999))
def test_the_softmax_over_all_images_equals_a_naive_loop(unit, views, images, temperature, seed):
    f, bank = unit(views, images, seed=seed), unit(9, seed=seed + 1)
    chosen = torch.randperm(9, generator=torch.Generator().manual_seed(seed))[:images]
    losses = []
    for v in range(views):
        for i, image in enumerate(chosen):
            scores = [math.exp(float(row @ f[v, i]) / temperature) for row in bank]
            losses.append(-math.log(scores[image] / sum(scores)))
    found = instance_softmax(f, bank, chosen, temperature).item()
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_loss_and_gradient_equal_the_public_librarys(agree, unit):
    from pytorch_metric_learning.losses import NormalizedSoftmaxLoss

    bank, images = unit(9, seed=1), torch.tensor([3, 0, 8, 5])
    library = NormalizedSoftmaxLoss(num_classes=9, embedding_size=6, temperature=0.3)
    library.W.data = bank.T
    agree(
        lambda f: instance_softmax(F.normalize(f, dim=-1), bank, images, 0.3),
        lambda f: library(f.flatten(0, 1), images.repeat(2)),
        3 * unit(2, 4),
    )


def test_with_the_right_constant_and_much_noise_the_estimate_has_the_softmaxs_gradient(unit):
    """At the optimum of Z for each view: noise-contrastive estimation is consistent."""
    bank, temperature = unit(9, seed=1), 0.5
    ours, exact = (unit(1, 1).requires_grad_() for _ in range(2))
    instance_softmax(exact, bank, torch.tensor([4]), temperature).backward()
    log_z = (bank @ ours.detach()[0, 0] / temperature).logsumexp(0)
    nce(ours, bank[[4]], bank.repeat(2000, 1), temperature, log_z, 9).backward()
    torch.testing.assert_close(ours.grad, exact.grad, atol=1e-3, rtol=1e-3)


def test_the_constant_is_estimated_once_from_the_first_batch(model, unit):
    term = InstDisc(InstDiscConfig(negatives=7, temperature=0.5), model, DATA)
    bank, z = term.bank.rows.clone(), unit(2, 3)
    noise = torch.randint(10, (7,), generator=torch.Generator().manual_seed(0))
    products = [float(torch.exp(z[v, i] @ bank[j] / 0.5)) for v in (0, 1) for i in range(3) for j in [4 + i, *noise]]
    loss, _ = term(batch(z, [4, 5, 6]))
    constant = 10 * sum(products) / len(products)
    assert term.log_z.exp().item() == pytest.approx(constant, rel=1e-5)
    assert loss.item() == pytest.approx(naive(z, bank[4:7], bank[noise], 0.5, constant, 10), rel=1e-4)
    before = term.log_z.clone()
    term(batch(unit(2, 3, seed=5), [0, 1, 2]))
    assert torch.equal(term.log_z, before)


@pytest.mark.parametrize("negatives", [None, 7])
def test_the_bank_remembers_the_images_of_the_batch_and_no_others(model, unit, negatives):
    term = InstDisc(InstDiscConfig(negatives=negatives, momentum=0.8), model, DATA)
    before, z = term.bank.rows.clone(), unit(3, 2)
    term(batch(z, [7, 2]))
    term.after_step(model, 0.1)
    bank = term.bank.rows
    for row, image in enumerate([7, 2]):
        torch.testing.assert_close(bank[image], F.normalize(0.8 * before[image] + 0.2 * z[:, row].mean(0), dim=0))
    rest = [i for i in range(10) if i not in (2, 7)]
    assert torch.equal(bank[rest], before[rest])


@pytest.mark.parametrize("negatives", [None, 7])
def test_gradients_go_to_the_projections_alone(model, unit, negatives):
    term = InstDisc(InstDiscConfig(negatives=negatives), model, DATA)
    z = unit(2, 3).requires_grad_()
    term(batch(z, [0, 1, 2]))[0].backward()
    assert z.grad.isfinite().all()
    assert z.grad.abs().sum() > 0
    assert not list(term.parameters())
    assert not any(value.requires_grad for value in term.buffers())
    assert term.bank.rows.grad is None


def test_the_noise_comes_from_the_steps_generator(model, unit):
    def loss(seed: int) -> Tensor:
        torch.manual_seed(1)
        term = InstDisc(InstDiscConfig(negatives=7), model, DATA)
        torch.rand(seed + 1)  # what others draw does not matter
        return term(batch(unit(2, 3), [0, 1, 2], seed))[0]

    assert torch.equal(loss(0), loss(0))
    assert not torch.equal(loss(0), loss(1))


def test_more_alike_than_the_noise_costs_less(model, unit):
    z, noise = unit(1, 4), unit(30, seed=3)
    log_z = torch.tensor(math.log(40))
    assert nce(z, z[0], noise, 0.3, log_z, 40) < nce(z, unit(4, seed=9), noise, 0.3, log_z, 40) - 1
