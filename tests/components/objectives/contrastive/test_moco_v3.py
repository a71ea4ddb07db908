import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from components.objectives.base import Batch, TrainingSet
from components.objectives.contrastive.moco_v3 import MoCoV3Config
from components.objectives.contrastive.moco_v3.term import MoCoV3, in_batch_info_nce

DATA = TrainingSet(np.zeros((8, 2, 2, 1), np.uint8))


@pytest.fixture
def model(make_model):
    return make_model().train()


def naive(q: Tensor, k: Tensor, temperature: float) -> float:
    """ctr(q, k) of algorithm 1, over ordered pairs of views: their sum for two views."""
    views, images = q.shape[:2]
    total = 0.0
    for v in range(views):
        for w in range(views):
            for i in range(images if v != w else 0):
                scores = [math.exp(float(q[v, i] @ k[w, j]) / temperature) for j in range(images)]
                total += -2 * temperature * math.log(scores[i] / sum(scores)) / images
    return 2 * total / (views * (views - 1))


@given(st.integers(2, 3), st.integers(2, 6), st.floats(0.05, 2), st.integers(0, 999))
def test_it_equals_a_naive_loop(unit, views, images, temperature, seed):
    q, k = unit(views, images, seed=seed), unit(views, images, seed=seed + 1)
    found = in_batch_info_nce(q, k, temperature).item()
    assert found == pytest.approx(naive(q.double(), k.double(), temperature), rel=1e-4, abs=1e-5)


def test_loss_and_gradient_equal_the_public_librarys(agree, unit):
    from pytorch_metric_learning.losses import NTXentLoss

    k, images = unit(2, 5, seed=1), torch.arange(5)
    of_keys = images.clone()  # the same object would say that queries and keys are the same vectors

    def theirs(q: Tensor) -> Tensor:
        both = [NTXentLoss(0.2)(q[v], images, ref_emb=k[1 - v], ref_labels=of_keys) for v in (0, 1)]
        return 2 * 0.2 * (both[0] + both[1])

    agree(lambda q: in_batch_info_nce(F.normalize(q, dim=-1), k, 0.2), theirs, 3 * unit(2, 5))


def test_gradients_go_through_the_predictor_to_the_queries_alone(model):
    term = MoCoV3(MoCoV3Config(), model, DATA)
    tokens = torch.randint(3, (8, 4, 1), generator=torch.Generator().manual_seed(0))
    features = model.pool(model.encode(tokens))
    with torch.no_grad():
        observed = term.observe(tokens).unflatten(0, (2, 4))
    z = model.project(features).unflatten(0, (2, 4))
    loss, _ = term(Batch(features.unflatten(0, (2, 4)), z, torch.arange(4), torch.Generator(), observed))
    loss.backward()
    trained = {name for name, p in term.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in term.named_parameters() if p.grad is not None}
    assert trained == {f"predictor.{name}" for name in ("0.weight", "1.weight", "1.bias", "3.weight")}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.encoder.parameters())


def test_the_momentum_grows_along_a_cosine_to_1(model):
    term = MoCoV3(MoCoV3Config(momentum=0.8), model, DATA)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    for progress, momentum in ((1e-9, 0.8), (0.5, 0.9), (1.0, 1.0)):
        before = term.encoder.model.start.clone()
        term.after_step(model, progress)
        torch.testing.assert_close(term.encoder.model.start, momentum * before + (1 - momentum) * model.start)
