"""What a run costs, told before it starts."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch.optim import Muon
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from components.model.build import Architecture
from components.model.gcrl import GCRL
from components.objectives.objective import Objective
from components.training.config import TrainingConfig
from components.training.device import choose_device, choose_dtype, describe_hardware
from components.training.memory import bytes_per_image, views_of
from components.training.optimizer import build_optimizers
from components.training.step import Execution, pass_through

LOADED = 0.15e9  # bytes of resident memory


def describe(
    model: GCRL, objective: Objective, architecture: Architecture, training: TrainingConfig
) -> dict[str, str | int | float]:
    """Parameters, training GFLOP an image (all its views), estimated peak memory of a process, device and precision.
    Of a model that is not trained the parameters and the device."""
    device = choose_device(training)
    parameters = sum(p.numel() for p in model.parameters())
    if objective.contrastive is None and objective.generative is None:
        return {"parameters": parameters, "hardware": describe_hardware(device)}
    dtype = choose_dtype(training, device)
    size = architecture.image_size
    blank = np.zeros((4, size, size, architecture.channels), np.uint8)
    return {
        "parameters": parameters,
        "gflop_per_image": round(flops_per_image(model, objective, blank, training) / 1e9, 3),
        "estimated_memory_gb": round(_training_bytes(model, objective, blank, training, dtype) / 1e9, 3),
        "precision": str(dtype).removeprefix("torch."),
        "hardware": describe_hardware(device),
    }


def flops_per_image(model: GCRL, objective: Objective, images: np.ndarray, training: TrainingConfig) -> float:
    """Floating-point operations of a training step for each image (all its views), counted while two of `images`
    (N, H, W, C) pass forward and backward: matrix products and convolutions of the model, of what a generative term
    owns and of what a contrastive one observes views with.

    A contrastive term's heads and loss are not among them: the loss grows with the batch, and both are small beside the
    encoder."""
    views = views_of(model, objective, images[:2], training)
    execution = Execution(partial(objective.represent, model), model.encode)
    was_training = model.training
    model.eval()  # the same products, and the projection head's statistics stay as they are
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        features, values = pass_through(views, execution)
        losses = []
        if objective.contrastive is not None:
            pooled = objective.contrastive.pooled(features)
            losses.append((pooled if model.projection is None else model.project(pooled)).sum())
            if objective.contrastive.observes:
                with torch.no_grad():
                    objective.contrastive.observe(views.tokens.flatten(0, 1))
        if values is not None:
            losses.append(objective.generate(values)[0])
        torch.stack(losses).sum().backward()
    model.zero_grad(set_to_none=True)
    objective.zero_grad(set_to_none=True)
    model.train(was_training)
    return counter.get_total_flops() / 2


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, *inputs: Any, **__: Any) -> int:
    return 2 * _attention(*inputs)


# The counter does not know the CPU's fused kernel, and counts what a fused backward pass computes a second time.
ATEN = torch.ops.aten
FUSED = {
    ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    ATEN._scaled_dot_product_flash_attention_backward: _attention_backward,
    ATEN._scaled_dot_product_efficient_attention_backward: _attention_backward,
    ATEN._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}


def _training_bytes(
    model: GCRL, objective: Objective, images: np.ndarray, training: TrainingConfig, dtype: torch.dtype
) -> float:
    """Weights, their gradients, the optimizers' states, what the objective owns, what a pass keeps for its backward
    pass, and on a CPU what torch loads for its first step; without the images."""
    states: dict[type, int] = {Muon: 1}  # numbers a weight; AdamW keeps two
    copies = 2 if training.ema_decay is None else 3
    weights = sum(
        p.numel() * p.element_size() * (copies + states.get(type(optimizer), 2))
        for optimizer in build_optimizers(model, training, objective)
        for group in optimizer.param_groups
        for p in group["params"]
    )
    owned = [p for p in objective.parameters() if not p.requires_grad] + list(objective.buffers())
    execution = Execution(partial(objective.represent, model), model.encode, dtype=dtype)
    each = bytes_per_image(model, objective, images, training, execution)
    passed = training.micro_batch_size or training.batch_size // training.processes
    loaded = LOADED if model.start.device.type == "cpu" else 0
    return weights + sum(t.nbytes for t in owned) + each * passed + loaded
