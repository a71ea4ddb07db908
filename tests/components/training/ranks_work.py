"""What test_ranks.py lets processes do; `python -m ranks_work FOLDER` is a run that does not end by itself."""

import copy
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.data.config import AugmentationConfig
from components.errors import ConfigError, UserError
from components.model.gcrl import GCRL
from components.objectives.config import VariantConfig
from components.training.config import TrainingConfig
from components.training.data import step_generator
from components.training.launch import OnMetrics
from components.training.loop import pretrain
from components.training.quick_look import PretrainData
from components.training.ranks import Ranks
from components.training.step import Execution, backward
from components.training.views import draw_views

HYBRID = VariantConfig(0.7, 1.3)
AUGMENTATION = AugmentationConfig(translate=0.2, brightness=0.3)
# variant, views, passes on each process
CASES = {
    "hybrid": (HYBRID, 2, 1),
    "hybrid-in-parts": (HYBRID, 2, 4),
    "three-views": (HYBRID, 3, 2),
    "generative": (VariantConfig(1, 0), 2, 1),
    "contrastive": (VariantConfig(0, 1), 2, 1),
}
CPU = torch.device("cpu")


def config(**changes: Any) -> TrainingConfig:
    fixed = {"learning_rate": 0.02, "optimizer": "adamw", "warmup_steps": 1, "device": "cpu", "precision": "float32"}
    every = {"log_every": 1, "evaluate_every": 3, "diagnose_every": 2, "checkpoint_seconds": 0}
    return TrainingConfig(**{"steps": 6, "batch_size": 16, **fixed, **every, **changes})


def step(
    model: GCRL, data: PretrainData, ranks: Ranks, variant: VariantConfig, views: int, passes: int, number: int = 0
) -> dict[str, Tensor]:
    """Losses, metrics, gradients and batch statistics of one step on 16 images."""
    model.train()
    mine = torch.from_numpy(data.images[16 * number : 16 * (number + 1)][ranks.share(16)])
    drawn = draw_views(model, mine, views, AUGMENTATION, step_generator(0, number, CPU), ranks)
    execution = Execution(model.represent, lambda tokens: model.pool(model.encode(tokens)), passes=passes, ranks=ranks)
    found = backward(model, drawn, variant, execution, list(model.encoder.parameters()))
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    watched = {f"gradient of {name} on the encoder": value for name, value in found.gradients.items()}
    return {**found.terms, **found.metrics, **gradients, **watched, **dict(model.named_buffers())}


def several_steps(model: GCRL, data: PretrainData, ranks: Ranks) -> dict[str, Tensor]:
    """The weights after five steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for number in range(5):
        step(model, data, ranks, HYBRID, 2, 1, number)
        optimizer.step()
    return model.state_dict()


def find(ranks: Ranks, on_metrics: OnMetrics, model: bytes, data: PretrainData, folder: Path) -> None:
    """Write what this process found in every case."""
    for name, case in CASES.items():
        torch.save(copy.deepcopy(step(pickle.loads(model), data, ranks, *case)), folder / f"{name}-{ranks.rank}.pt")
    torch.save(several_steps(pickle.loads(model), data, ranks), folder / f"weights-{ranks.rank}.pt")
    torch.save(ranks.of_leader(0.1 + ranks.rank), folder / f"clock-{ranks.rank}.pt")


def refuse(ranks: Ranks, on_metrics: OnMetrics) -> None:
    """One process gives up while the other waits for it."""
    if ranks.rank == 1:
        raise ConfigError("the second process has a reason")
    ranks.gather(torch.zeros(1, 1))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with (folder / "start.pkl").open("rb") as file:
        model, data = pickle.load(file)
    endless = config(steps=1_000_000, processes=2)
    try:
        pretrain(model, data, HYBRID, endless, AUGMENTATION, 0, folder / "resume.pt", "key", lambda step, row: None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
