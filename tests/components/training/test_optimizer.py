import math
from itertools import pairwise

import pytest
import torch
from torch.optim import AdamW, Muon

from components.objectives.generative.pixelcnn import PixelCNNConfig
from components.training.config import TrainingConfig
from components.training.optimizer import build_optimizers, effective_learning_rate, schedule, set_learning_rate


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**{"steps": 100, "batch_size": 64, "learning_rate": 0.01, "warmup_steps": 10, **changes})


@pytest.fixture
def model(make_model):
    return make_model(patch_size=2, image_size=4)


def names_of(model, group) -> set[str]:
    members = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in members}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_parameter_has_exactly_one_optimizer(model, optimizer):
    groups = [group for o in build_optimizers(model, config(optimizer=optimizer)) for group in o.param_groups]
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters()}


def test_muon_has_the_matrices_inside_the_blocks_and_no_others(model):
    adamw, muon = build_optimizers(model, config())
    assert isinstance(adamw, AdamW)
    assert isinstance(muon, Muon)
    matrices = ("attention.query_key_value.weight", "attention.out.weight", "mlp.0.weight", "mlp.2.weight")
    expected = {f"{part}.blocks.{i}.{m}" for part in ("encoder", "decoder") for i in (0, 1) for m in matrices}
    assert names_of(model, muon.param_groups[0]) == expected


def test_muon_has_the_kernels_of_convolutions_as_matrices(make_model):
    model = make_model(patch_size=2, image_size=4, generative=PixelCNNConfig())
    streams = {"vertical": ("first", "second"), "horizontal": ("first", "beside", "second")}
    kernels = [f"{stream}.{kernel}.weight" for stream, found in streams.items() for kernel in found]
    expected = {f"{part}.blocks.{i}.{k}" for part in ("encoder", "decoder") for i in (0, 1) for k in kernels}
    assert names_of(model, build_optimizers(model, config())[1].param_groups[0]) == expected


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_norms_biases_embeddings_and_positions_are_not_decayed(model, optimizer):
    groups = [g for o in build_optimizers(model, config(optimizer=optimizer)) for g in o.param_groups]
    free = {name for g in groups if g["weight_decay"] == 0 for name in names_of(model, g)}
    vectors = {name for name, p in model.named_parameters() if p.ndim == 1}
    assert free == vectors | {"embedding.weight", "head.embedding.weight", "position"}
    assert {g["weight_decay"] for g in groups} == {0, 0.05}


def test_decay_shrinks_what_is_decayed_and_nothing_else(model):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = build_optimizers(model, config(weight_decay=0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for optimizer in optimizers:
        optimizer.step()
    factor = 1 - 0.5 * effective_learning_rate(config())
    for name, p in model.named_parameters():
        kept = p.ndim == 1 or "embedding" in name or name == "position"
        torch.testing.assert_close(p.detach(), before[name] * (1 if kept else factor))


def test_the_rate_is_scaled_by_the_batch():
    assert effective_learning_rate(config(batch_size=256)) == 0.01
    assert effective_learning_rate(config(batch_size=64)) == 0.0025


def test_the_schedule_warms_up_and_falls_as_a_cosine():
    factors = [schedule(config(), step) for step in range(100)]
    assert factors[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    assert factors[55] == pytest.approx(0.5)  # half-way from step 10 to 100
    assert factors[40] == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert 0 < factors[99] < 0.001
    assert schedule(config(), 100) == pytest.approx(0)


def test_no_warm_up_starts_at_the_peak():
    assert schedule(config(warmup_steps=0), 0) == 1


def test_one_rate_reaches_every_group(model):
    optimizers = build_optimizers(model, config())
    set_learning_rate(optimizers, 0.123)
    assert {g["lr"] for o in optimizers for g in o.param_groups} == {0.123}
