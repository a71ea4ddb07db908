import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.distillation.config import ClusterFitConfig, CrdConfig, KdConfig, RegressionConfig, StudentConfig
from components.distillation.losses import soft_targets
from components.distillation.objective import Distillation, build_student_objective
from components.model.encode import encode_images
from components.model.tokens import to_unit
from components.objectives.base import Batch, TrainingSet
from components.objectives.objective import Objective
from components.training.config import TrainingConfig
from components.training.optimizer import build_optimizers

CPU = torch.device("cpu")
ALL = StudentConfig(
    "hybrid",
    crd=CrdConfig(0.5, 9, embedding_size=4),
    kd=KdConfig(2.0),
    regression=RegressionConfig(3.0),
    clusterfit=ClusterFitConfig(0.7, clusters=6),
)


@pytest.fixture
def objective(teacher, probe, student, data) -> Objective:
    return build_student_objective(ALL, teacher, probe, student(), TrainingSet(data.images), seed=0)


def a_batch(student_features: Tensor, teacher_features: Tensor) -> Batch:
    images = torch.arange(len(student_features))
    generator = torch.Generator().manual_seed(0)
    return Batch(student_features[None], student_features[None], images, generator, teacher_features[None])


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_the_teacher_sees_what_the_student_sees(teacher, probe, student, data, patch_size):
    """Whatever the size of the student's patches: its features are those of the images themselves."""
    model = student(patch_size=patch_size)
    term = Distillation(ALL, teacher, probe, model, TrainingSet(data.images))
    seen = data.images[:10]
    tokens = model.tokenizer(to_unit(torch.from_numpy(seen)))
    expected, _ = encode_images(teacher, seen, CPU)
    torch.testing.assert_close(term.observe(tokens), expected)


def test_the_loss_is_the_weighted_sum_of_all(objective):
    features = torch.randn(5, 8), torch.randn(5, 16)
    loss, metrics = objective.contrast(a_batch(*features))
    each = {"crd_loss", "kd_loss", "regression_loss", "clusterfit_loss"}
    assert set(metrics) == {"distillation_loss", *each}
    assert torch.equal(metrics["distillation_loss"], loss.detach())
    expected = 0.5 * metrics["crd_loss"] + 2 * metrics["kd_loss"] + 3 * metrics["regression_loss"]
    expected += 0.7 * metrics["clusterfit_loss"]
    torch.testing.assert_close(loss.detach(), expected)


def test_soft_targets_are_those_of_the_teachers_probe(objective, probe):
    student, teacher = torch.randn(5, 8), torch.randn(5, 16)
    _, metrics = objective.contrast(a_batch(student, teacher))
    logits = teacher @ torch.tensor(probe.weight).float().T + torch.tensor(probe.bias).float()
    classifier = objective.contrastive.classifier
    torch.testing.assert_close(metrics["kd_loss"], soft_targets(classifier(student), logits, 4.0).detach())


def test_regression_is_on_the_teachers_features(objective):
    student, teacher = torch.randn(5, 8), torch.randn(5, 16)
    _, metrics = objective.contrast(a_batch(student, teacher))
    predicted = objective.contrastive.regressor(student)
    torch.testing.assert_close(metrics["regression_loss"], F.mse_loss(predicted, teacher).detach() / 2)


@pytest.mark.parametrize(
    ("config", "owned"),
    [
        (StudentConfig("t", crd=CrdConfig(negatives=9, embedding_size=4)), {"crd"}),
        (StudentConfig("t", kd=KdConfig()), {"classifier"}),
        (StudentConfig("t", regression=RegressionConfig()), {"regressor"}),
        (StudentConfig("t", clusterfit=ClusterFitConfig(clusters=6)), {"clusterfit"}),
        (ALL, {"crd", "classifier", "regressor", "clusterfit"}),
    ],
)
def test_each_loss_owns_and_trains_what_it_needs_and_nothing_of_the_teacher(
    config, owned, teacher, probe, student, data
):
    model = student()
    objective = build_student_objective(config, teacher, probe, model, TrainingSet(data.images), seed=0)
    features = torch.randn(5, 8, requires_grad=True)
    loss, _ = objective.contrast(a_batch(features, torch.randn(5, 16)))
    loss.backward()
    assert features.grad is not None
    assert (features.grad.abs().sum(1) > 0).all()
    trained = {name.split(".")[1] for name, p in objective.named_parameters() if p.grad is not None}
    assert trained == owned
    optimizers = build_optimizers(model, TrainingConfig(60, 16, 0.01), objective)
    optimized = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in teacher.parameters()}
    assert {id(p) for p in objective.parameters() if p.grad is not None} <= optimized


def test_the_buffers_move_on_after_the_step_alone(objective, student):
    crd = objective.contrastive.crd
    before = crd.student_buffer.rows.clone()
    objective.contrast(a_batch(torch.randn(5, 8), torch.randn(5, 16)))
    assert torch.equal(crd.student_buffer.rows, before)
    objective.after_step(student(), 0.1)
    changed = (crd.student_buffer.rows != before).any(1)
    assert changed[:5].all()
    assert not changed[5:].any()


def test_the_same_seed_gives_the_same_heads_and_buffers(teacher, probe, student, data):
    torch.manual_seed(5)
    build = [
        build_student_objective(ALL, teacher, probe, student(), TrainingSet(data.images), seed) for seed in (1, 1, 2)
    ]
    one, same, other = (o.contrastive.crd.student_buffer.rows for o in build)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_more_negatives_than_other_images_are_not_drawn(teacher, probe, student, data):
    config = dataclasses.replace(ALL, crd=CrdConfig())
    objective = build_student_objective(config, teacher, probe, student(), TrainingSet(data.images), seed=0)
    assert objective.contrastive.crd.negatives == 95
