import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from components.distillation.config import CrdConfig
from components.distillation.crd import Crd, draw_negatives, usable_negatives

STUDENT, TEACHER, IMAGES = 5, 7, 12


def make(seed: int = 0, **changes: float) -> Crd:
    torch.manual_seed(seed)
    config = CrdConfig(**{"embedding_size": 4, "negatives": 6, **changes})  # type: ignore[arg-type]
    return Crd(STUDENT, TEACHER, IMAGES, config).double()


def batch(seed: int, size: int = 3, count: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randperm(IMAGES, generator=generator)[:size]
    student, teacher = (torch.randn(size, d, generator=generator, dtype=torch.float64) for d in (STUDENT, TEACHER))
    return student, teacher, images, draw_negatives(images, count, IMAGES, generator)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.sqrt((vector**2).sum())


class Naive:
    """The paper's equations one number at a time, and the buffers of the authors' code."""

    def __init__(self, crd: Crd) -> None:
        self.tau, self.momentum = crd.config.temperature, crd.config.momentum
        self.heads = [[p.detach().numpy().copy() for p in head.parameters()] for head in (crd.student, crd.teacher)]
        self.buffers = [crd.student_buffer.rows.numpy().copy(), crd.teacher_buffer.rows.numpy().copy()]
        self.Z: list[float] | None = None

    def loss(self, student: Tensor, teacher: Tensor, images: Tensor, negatives: Tensor) -> float:
        M, N = len(self.buffers[0]), negatives.shape[1]
        own = []
        for (weight, bias), features in zip(self.heads, (student, teacher), strict=True):
            own.append([unit(weight @ f + bias) for f in features.numpy()])
        scores: list[list[list[float]]] = [[], []]  # of each anchor: the student's, the teacher's
        for anchor, other in ((0, 1), (1, 0)):
            for b, image in enumerate(images.tolist()):
                compared = [image, *negatives[b].tolist()]
                scores[anchor].append([math.exp(own[anchor][b] @ self.buffers[other][j] / self.tau) for j in compared])
        if self.Z is None:
            self.Z = [float(np.mean(s)) * M for s in scores]
        total = 0.0
        for anchor in (0, 1):
            for row in scores[anchor]:
                p = [score / self.Z[anchor] for score in row]
                h = [x / (x + N / M) for x in p]
                total += -math.log(h[0]) - sum(math.log(1 - x) for x in h[1:])
        for buffer, embeddings in zip(self.buffers, own, strict=True):
            for image, embedding in zip(images.tolist(), embeddings, strict=True):
                buffer[image] = unit(self.momentum * buffer[image] + (1 - self.momentum) * embedding)
        return total / len(images)


@pytest.mark.parametrize(
    "shape", [{"embedding_size": 4, "negatives": 6}, {"embedding_size": 2, "negatives": 1}], ids=str
)
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.07, 2), st.floats(0, 0.9))
def test_several_steps_equal_a_naive_loop(shape, seed, temperature, momentum):
    """With many negatives for the set's size, where the buffers are multiplied whole, and with few."""
    crd = make(seed, temperature=temperature, momentum=momentum, **shape)
    naive = Naive(crd)
    for step in range(3):
        given_batch = batch(seed + step, count=shape["negatives"])
        assert crd(*given_batch).item() == pytest.approx(naive.loss(*given_batch), rel=1e-9)
        crd.after_step()
        assert naive.Z is not None
        torch.testing.assert_close(crd.log_z, torch.tensor(naive.Z, dtype=torch.float64).log())
        torch.testing.assert_close(crd.student_buffer.rows, torch.from_numpy(naive.buffers[0]))
        torch.testing.assert_close(crd.teacher_buffer.rows, torch.from_numpy(naive.buffers[1]))


def test_it_equals_the_authors_formula_with_its_epsilon():
    """RepDistiller, crd/criterion.py: Pn = 1/M and ε = 1e-7 in the denominators."""
    crd = make()
    student, teacher, images, negatives = batch(1)
    naive = Naive(copy.deepcopy(crd))
    naive.loss(student, teacher, images, negatives)
    assert naive.Z is not None
    s, t = (torch.nn.functional.normalize(h(x), dim=1) for h, x in ((crd.student, student), (crd.teacher, teacher)))
    compared = torch.cat([images[:, None], negatives], 1)
    expected = torch.zeros((), dtype=torch.float64)
    for embedding, buffer, Z in ((s, crd.teacher_buffer.rows, naive.Z[0]), (t, crd.student_buffer.rows, naive.Z[1])):
        out = torch.bmm(buffer[compared], embedding[:, :, None]).squeeze(2).div(0.07).exp() / Z  # (B, 1 + N)
        noise, m = 1 / IMAGES, negatives.shape[1]
        first = out[:, 0] / (out[:, 0] + m * noise + 1e-7)
        rest = m * noise / (out[:, 1:] + m * noise + 1e-7)
        expected = expected - (first.log().sum() + rest.log().sum()) / len(images)
    torch.testing.assert_close(crd(student, teacher, images, negatives), expected, rtol=1e-5, atol=0)


def test_both_embeddings_learn_and_so_does_the_student_but_no_buffer():
    crd = make()
    student, teacher, images, negatives = batch(0)
    student.requires_grad_()
    crd(student, teacher, images, negatives).backward()
    crd.after_step()
    assert student.grad is not None
    assert student.grad.abs().min() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in crd.parameters())
    assert {name for name, _ in crd.named_parameters()} == {
        f"{n}.{p}" for n in ("student", "teacher") for p in ("weight", "bias")
    }
    assert not crd.student_buffer.rows.requires_grad


@pytest.mark.trains
def test_following_the_gradient_brings_student_and_teacher_together():
    crd = make(temperature=0.5)
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(IMAGES)
    teacher = torch.randn(IMAGES, TEACHER, generator=generator, dtype=torch.float64)
    student = torch.randn(IMAGES, STUDENT, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([student, *crd.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        crd(student, teacher, images, draw_negatives(images, 6, IMAGES, generator)).backward()
        crd.after_step()
        optimizer.step()
    s, t = (torch.nn.functional.normalize(h(x), dim=1) for h, x in ((crd.student, student), (crd.teacher, teacher)))
    assert ((s @ t.T).argmax(1) == images).all()


def test_the_constants_are_those_of_the_first_batch_and_are_saved():
    crd = make()
    assert crd.log_z.isnan().all()
    crd(*batch(0))
    first = crd.log_z.clone()
    crd.after_step()
    crd(*batch(1))
    assert torch.equal(crd.log_z, first)
    resumed = make(seed=1)
    resumed.load_state_dict(crd.state_dict())
    assert torch.equal(crd(*batch(2)), resumed(*batch(2)))
    assert all(torch.equal(a, b) for a, b in zip(crd.buffers(), resumed.buffers(), strict=True))


def test_extreme_temperatures_give_finite_losses_and_gradients():
    crd = make(temperature=0.005).float()  # exp(1/τ) is no float32
    student, teacher, images, negatives = batch(0)
    student = student.float().requires_grad_()
    for _ in range(3):
        loss = crd(student, teacher.float(), images, negatives)
        loss.backward()
        crd.after_step()
        assert loss.isfinite()
        assert student.grad is not None
        assert student.grad.isfinite().all()


@given(st.integers(0, 2**31), st.integers(2, 50), st.integers(1, 60))
def test_negatives_are_other_images(seed, among, count):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randperm(among, generator=generator)[: min(among, 8)]
    negatives = draw_negatives(images, count, among, generator)
    assert negatives.shape == (len(images), count)
    assert (negatives != images[:, None]).all()
    assert ((negatives >= 0) & (negatives < among)).all()


def test_every_other_image_is_drawn_equally_often():
    negatives = draw_negatives(torch.tensor([0, 3, 4]), 20_000, 5, torch.Generator().manual_seed(0))
    shares = torch.nn.functional.one_hot(negatives, 5).double().mean(1)  # (3, 5)
    expected = torch.full((3, 5), 0.25, dtype=torch.float64)
    expected[torch.arange(3), torch.tensor([0, 3, 4])] = 0
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)


def test_there_are_no_more_negatives_than_other_images():
    assert usable_negatives(CrdConfig(), 50_000) == 16384
    assert usable_negatives(CrdConfig(), 1007) == 1006
