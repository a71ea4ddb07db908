"""Muon for the hidden matrices, AdamW for everything else, both under one schedule."""

import itertools
import math

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from components.training.config import TrainingConfig

BETAS = (0.9, 0.95)  # iGPT


def effective_learning_rate(config: TrainingConfig) -> float:
    """The peak rate at this batch: the base rate is given for 256 images (Goyal et al. 2017's linear rule)."""
    return config.learning_rate * config.batch_size / 256


def build_optimizers(model: nn.Module, config: TrainingConfig, objective: nn.Module | None = None) -> list[Optimizer]:
    """The optimizers of a model, and of what its objective owns and wants trained. Norms, biases, embeddings and
    positions are not decayed.

    Muon (Jordan 2024) takes the 2-D weights inside the transformer blocks; its update is scaled to AdamW's root mean
    square (Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both.
    """
    lr = effective_learning_rate(config)
    hidden, decayed, free = [], [], []
    modules = [model] if objective is None else [model, objective]
    for name, parameter in itertools.chain(*(module.named_parameters() for module in modules)):
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or "embedding" in name or "position" in name:
            free.append(parameter)
        elif ".blocks." in name and config.optimizer == "muon":
            hidden.append(parameter)
        else:
            decayed.append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    on_cuda = next(model.parameters()).is_cuda  # one kernel for all of AdamW's weights; on a CPU it gains nothing
    optimizers: list[Optimizer] = [AdamW(groups, lr=lr, betas=BETAS, fused=on_cuda)]
    if hidden:
        muon = Muon(hidden, lr=lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        optimizers.append(muon)
    return optimizers


def schedule(config: TrainingConfig, step: float) -> float:
    """Factor on the peak rate at a step (from 0): linear warm-up, then a cosine that reaches 0 after the last step."""
    if step < config.warmup_steps:
        return min(1.0, (step + 1) / config.warmup_steps)
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizers: list[Optimizer], rate: float) -> None:
    """Give every group of every optimizer this rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
