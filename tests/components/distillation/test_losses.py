import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.distillation.losses import feature_regression, soft_targets


def softmax(logits: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(x / temperature) for x in logits]
    return [e / sum(exponentials) for e in exponentials]


@given(st.integers(0, 2**31), st.floats(0.5, 10))
def test_soft_targets_equal_a_naive_loop(seed, temperature):
    student, teacher = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    assert soft_targets(student, teacher, temperature).item() == pytest.approx(temperature**2 * total / 5)


def test_soft_targets_agree_where_logits_differ_by_a_constant():
    logits = torch.randn(3, 4)
    assert soft_targets(logits + 5, logits, 4.0).item() == pytest.approx(0, abs=1e-5)


def test_feature_regression_is_half_the_mean_square():
    predicted, teacher = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[0.0, 2.0], [3.0, 1.0]])
    assert feature_regression(predicted, teacher).item() == (1 + 16) / 4 / 2
