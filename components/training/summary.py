"""What a run costs, told before it starts."""

from functools import partial

import numpy as np
import torch
from torch.optim import Muon

from components.model.build import Architecture
from components.model.flops import flops_per_view
from components.model.gcrl import GCRL
from components.objectives.terms import Objective
from components.training.config import TrainingConfig
from components.training.device import choose_device, choose_dtype, describe_hardware
from components.training.memory import bytes_per_image
from components.training.optimizer import build_optimizers
from components.training.step import Execution


def describe(
    model: GCRL, objective: Objective, architecture: Architecture, training: TrainingConfig
) -> dict[str, str | int | float]:
    """Parameters, training GFLOP an image (all its views), estimated peak memory of a process, device and precision."""
    device = choose_device(training)
    dtype = choose_dtype(training, device)
    variant = objective.variant
    generative = variant.generative
    flops = flops_per_view(architecture, generative.scored(model.patches))
    encoder, decoder = flops.training
    if objective.contrastive is not None and objective.contrastive.observes:
        encoder += flops.encoder  # the same encoder's again, without a gradient
    total = variant.views(training.views) * encoder + generative.scored_views * decoder
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop_per_image": round(total / 1e9, 3),
        "estimated_memory_gb": round(_training_bytes(model, objective, architecture, training, dtype) / 1e9, 3),
        "precision": str(dtype).removeprefix("torch."),
        "hardware": describe_hardware(device),
    }


def _training_bytes(
    model: GCRL, objective: Objective, architecture: Architecture, training: TrainingConfig, dtype: torch.dtype
) -> float:
    """Weights, their gradients, the optimizers' states, what the objective owns, and what a pass keeps for its backward
    pass; without the images and whatever the runtime itself takes."""
    states: dict[type, int] = {Muon: 1}  # numbers a weight; AdamW keeps two
    copies = 2 if training.ema_decay is None else 3
    weights = sum(
        p.numel() * p.element_size() * (copies + states.get(type(optimizer), 2))
        for optimizer in build_optimizers(model, training, objective)
        for group in optimizer.param_groups
        for p in group["params"]
    )
    owned = [p for p in objective.parameters() if not p.requires_grad] + list(objective.buffers())
    size = architecture.image_size
    blank = np.zeros((4, size, size, architecture.channels), np.uint8)
    execution = Execution(partial(objective.represent, model), model.encode, dtype=dtype)
    each = bytes_per_image(model, objective, blank, training, execution)
    images = training.micro_batch or training.batch_size // training.processes
    return weights + sum(t.nbytes for t in owned) + each * images
