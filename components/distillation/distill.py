"""Training a student: the loop of pretraining, with a teacher's features as its target."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.data.config import AugmentationConfig
from components.distillation.config import StudentConfig
from components.distillation.objective import Objective, Probe, build_objective
from components.model.gcrl import GCRL
from components.training.checkpoint import State
from components.training.config import TrainingConfig
from components.training.data import step_generator
from components.training.loop import OnMetrics, Run, Trained, train
from components.training.quick_look import PretrainData
from components.training.step import Execution, Found
from components.training.views import Views, draw_views

VIEWS = 1  # of an image and step, seen by both: the buffers of CRD hold one embedding an image


def distill(
    model: GCRL,
    teacher: GCRL,
    probe: Probe | None,
    data: PretrainData,
    student: StudentConfig,
    config: TrainingConfig,
    augmentation: AugmentationConfig,
    seed: int,
    resume: Path,
    resume_key: str,
    on_metrics: OnMetrics,
) -> Trained:
    """Train the encoder `model` in place to follow `teacher`, both on the same augmented views; see `pretrain`.

    The teacher stays as it is. `probe` is needed for soft targets alone.
    """
    widths = model.norm.normalized_shape[0], teacher.norm.normalized_shape[0]
    objective = build_objective(student, *widths, len(data.images), probe, seed)
    gradient = partial(distillation_gradient, teacher.eval().requires_grad_(False))
    run = Run(gradient, config, augmentation, seed, resume, resume_key, objective)
    return train(model, data, run, on_metrics)


def distillation_gradient(
    teacher: GCRL, state: State, pixels: Tensor, images: np.ndarray, run: Run, execution: Execution, diagnose: bool
) -> Found:
    """Set every parameter's gradient to that of the student's weighted losses.

    As in pretraining, features of all parts and processes come together, and every process computes losses, heads and
    buffers of the whole batch: they are the same however the batch is spread.
    """
    model, objective, ranks = state.model, state.objective, execution.ranks
    assert isinstance(objective, Objective)
    device = pixels.device
    generator = step_generator(run.seed, state.step, device)
    parts = draw_views(model, pixels, VIEWS, run.augmentation, generator, ranks).split(execution.passes)
    targets = ranks.gather(_targets(teacher.to(device), model, parts, execution)[None])[0]  # (B, D_t)
    with torch.set_grad_enabled(len(parts) == 1):  # several are passed again below
        features = torch.cat([_features(part, execution) for part in parts])  # (b, D_s)
    everyone = ranks.gather(features[None])[0].requires_grad_()  # (B, D_s)
    losses = objective(everyone, targets, torch.from_numpy(images).to(device), generator)
    weighted = {name: objective.config.terms[name].weight * loss for name, loss in losses.items()}
    for parameter in state.parameters():
        parameter.grad = None
    torch.stack(list(weighted.values())).sum().backward()
    assert everyone.grad is not None
    slopes = everyone.grad[ranks.share(len(everyone))].chunk(len(parts))
    for part, slope in zip(parts, slopes, strict=True):
        own = features if len(parts) == 1 else _features(part, execution)
        (ranks.size * (own * slope).sum()).backward()  # processes are averaged below, each with its own features
    objective.remember()
    found = Found(
        {name: loss.detach() for name, loss in weighted.items()},
        {f"{name}_loss": loss.detach() for name, loss in losses.items()},
        {},
    )
    gradients = [p.grad for p in state.parameters() if p.grad is not None]
    ranks.average_([*gradients, *found.terms.values(), *found.metrics.values()])
    return found


def _features(part: Views, execution: Execution) -> Tensor:
    """The student's features (b, D_s)."""
    tokens = part.tokens.flatten(0, 1)
    with execution.autocast(tokens.device):
        return execution.encode(tokens)


@torch.no_grad()
def _targets(teacher: GCRL, student: GCRL, parts: Sequence[Views], execution: Execution) -> Tensor:
    """The teacher's features (b, D_t) of the same views; patches of another size are cut anew."""
    tokens = [part.tokens.flatten(0, 1) for part in parts]
    if teacher.tokenizer.patch_size != student.tokenizer.patch_size:
        tokens = [teacher.tokenizer(student.tokenizer.colours(t)) for t in tokens]
    with execution.autocast(tokens[0].device):
        return torch.cat([teacher.pool(teacher.encode(t)) for t in tokens])
