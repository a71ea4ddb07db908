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
from components.objectives.contrastive.moco import MoCoConfig
from components.objectives.contrastive.moco.term import MoCo, info_nce
from components.objectives.objective import build_objective

DATA = TrainingSet(np.zeros((20, 2, 2, 1), np.uint8))


@pytest.fixture
def model(make_model):
    return make_model().train()


def batch_of(model, term: MoCo, seed: int = 0, images: int = 4) -> Batch:
    """What a step would hand to the term for random tokens."""
    tokens = torch.randint(3, (2 * images, 4, 1), generator=torch.Generator().manual_seed(seed))
    features = model.pool(model.encode(tokens))
    with torch.no_grad():
        observed = term.observe(tokens).unflatten(0, (2, images))
    projections = model.project(features).unflatten(0, (2, images))
    return Batch(features.unflatten(0, (2, images)), projections, torch.arange(images), torch.Generator(), observed)


def naive(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> float:
    """Equation 1 of MoCo, one query and key at a time."""
    losses = []
    for v in range(len(q)):
        for w in range(len(q)):
            for i in range(q.shape[1]):
                if v == w:
                    continue
                positive = math.exp(float(q[v, i] @ k[w, i]) / temperature)
                negatives = sum(math.exp(float(q[v, i] @ n) / temperature) for n in queue)
                losses.append(-math.log(positive / (positive + negatives)))
    return sum(losses) / len(losses)


@given(st.integers(2, 3), st.integers(1, 5), st.integers(1, 9), st.floats(0.05, 2), st.integers(0, 999))
def test_it_equals_a_naive_loop(unit, views, images, queue, temperature, seed):
    q, k, negatives = unit(views, images, seed=seed), unit(views, images, seed=seed + 1), unit(queue, seed=seed + 2)
    found = info_nce(q, k, negatives, temperature).item()
    assert found == pytest.approx(naive(q.double(), k.double(), negatives.double(), temperature), rel=1e-4, abs=1e-5)


def test_loss_and_gradient_equal_the_public_librarys(agree, unit):
    """One image at a time: there a query's other references are its negatives."""
    from pytorch_metric_learning.losses import NTXentLoss

    k, queue, labels = unit(2, 5, seed=1), unit(7, seed=2), torch.arange(8)

    def theirs(q: Tensor) -> Tensor:
        each = []
        for v in (0, 1):
            for i in range(5):
                references = torch.cat([k[1 - v, i, None], queue])
                each.append(NTXentLoss(0.2)(q[v, i, None], labels[:1], ref_emb=references, ref_labels=labels))
        return torch.stack(each).mean()

    agree(lambda q: info_nce(F.normalize(q, dim=-1), k, queue, 0.2), theirs, 3 * unit(2, 5))


def test_the_queue_holds_the_last_keys_and_a_batch_is_contrasted_with_those_before_it(model):
    term = MoCo(MoCoConfig(queue_size=20, temperature=0.3), model, DATA)
    assert torch.allclose(term.queue.norm(dim=1), torch.ones(20))
    kept = [*term.queue.clone()]
    for seed in range(5):  # eight keys each: the queue goes round twice
        batch = batch_of(model, term, seed)
        keys = term.encoder.project(batch.observed)
        loss, _ = term(batch)
        assert loss.item() == pytest.approx(naive(batch.projections.detach(), keys, torch.stack(kept), 0.3), rel=1e-4)
        term.after_step(model, 0.1)
        kept = [*kept[8:], *keys.flatten(0, 1)]
        assert {row.numpy().tobytes() for row in term.queue} == {row.numpy().tobytes() for row in kept}


def test_of_more_keys_than_it_holds_the_queue_keeps_the_last(model):
    term = MoCo(MoCoConfig(queue_size=3), model, DATA)
    batch = batch_of(model, term)
    keys = term.encoder.project(batch.observed).flatten(0, 1)
    term(batch)
    term.after_step(model, 0.1)
    assert {row.numpy().tobytes() for row in term.queue} == {row.numpy().tobytes() for row in keys[-3:]}


def test_a_queue_longer_than_the_training_set_is_refused(model):
    with pytest.raises(ConfigError, match=r"contrastive.queue_size: 21 keys, but there are only 20 images"):
        build_objective(VariantConfig(0, 1, contrastive=MoCoConfig(queue_size=21)), model, DATA, 0)


def test_gradients_go_to_the_queries_alone(model):
    term = MoCo(MoCoConfig(queue_size=8), model, DATA)
    loss, metrics = term(batch_of(model, term))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.encoder.parameters())
    assert model.projection[3].weight.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in term.parameters())
    assert not metrics["contrastive_accuracy"].requires_grad


def test_the_key_encoder_follows_the_model_and_holds_no_decoder(model):
    term = MoCo(MoCoConfig(queue_size=8, momentum=0.9), model, DATA)
    first = {name: p.clone() for name, p in term.encoder.model.named_parameters()}
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in first.items())
    assert not any(name.startswith(("decoder", "head", "condition")) for name in first)
    term(batch_of(model, term))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    term.after_step(model, 0.5)
    for name, p in term.encoder.model.named_parameters():
        torch.testing.assert_close(p, first[name] + 0.1)
