"""The state of a run, and the resume file: everything the next step depends on."""

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from components.errors import UserError
from components.files import atomic_file
from components.model.gcrl import GCRL
from components.objectives.objective import Objective
from components.training.config import TrainingConfig

History = list[dict[str, float]]
SHARE_OF_TIME = 1 / 20  # at most, that goes into resume files: a large bank takes seconds to write
# what torch.load and load_state_dict raise for a file that is cut short, altered or not theirs
UNUSABLE = (RuntimeError, LookupError, TypeError, AttributeError, ValueError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Kept:
    """The model that the run would end with if it ended now, where that is not simply the last."""

    step: int
    score: float  # higher is better
    weights: dict[str, Tensor]


@dataclass
class State:
    """What training changes. Data order and augmentation are functions of (seed, step): no sampler or generator state
    is needed, and the schedule is a function of the step."""

    model: GCRL
    objective: Objective  # what its terms own is saved
    optimizers: list[Optimizer]
    average: GCRL | None = None  # the moving average of the weights
    step: int = 0  # finished ones
    seconds: float = 0.0  # that the timed steps took (components/training/budget.py)
    timed_steps: int = 0
    history: History = field(default_factory=list)
    kept: Kept | None = None


def seconds_to_next_save(config: TrainingConfig, took: float) -> float:
    """How long to train before the next resume file, after one that took so many seconds to write."""
    return max(config.checkpoint_seconds, took / SHARE_OF_TIME) if config.checkpoint_seconds else 0


def save_resume(path: Path, key: str, state: State) -> None:
    """Write a run's state."""
    content = io.BytesIO()  # torch would hide a full disk's error
    saved = {
        "key": key,
        "step": state.step,
        "seconds": state.seconds,
        "timed_steps": state.timed_steps,
        "model": state.model.state_dict(),
        "objective": state.objective.state_dict(),
        "optimizers": [o.state_dict() for o in state.optimizers],
        "average": state.average.state_dict() if state.average else None,
        "history": state.history,
        "kept": vars(state.kept) if state.kept else None,
    }
    torch.save(saved, content)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def saved_step(path: Path) -> int:
    """After which step a resume file was written: 0 where there is none, or none that `load_resume` could use."""
    if not path.exists():
        return 0
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"])  # reads no tensor
    except (OSError, *UNUSABLE):
        return 0


def load_resume(path: Path, key: str, state: State) -> None:
    """Restore a run's state in place; where there is no file it stays as it is."""
    if not path.exists():
        return
    start_over = f"Delete {path.parent} to start over."
    try:
        content = io.BytesIO(path.read_bytes())  # given a path, a damaged file would raise the OSError of a bad disk
        saved: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        if saved["key"] != key:
            raise UserError(f"{path}: resume file of another run (key {saved['key']}, expected {key}). {start_over}")
        state.model.load_state_dict(saved["model"])
        state.objective.load_state_dict(saved["objective"])
        for optimizer, its in zip(state.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(its)
        if state.average:
            state.average.load_state_dict(saved["average"])
        state.kept = Kept(**saved["kept"]) if saved["kept"] else None
        state.step, state.history = saved["step"], saved["history"]
        state.seconds, state.timed_steps = saved["seconds"], saved["timed_steps"]
    except UNUSABLE as error:
        raise UserError(f"{path}: not a usable resume file ({type(error).__name__}). {start_over}") from error
