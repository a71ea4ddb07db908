"""The resume file: everything the next step depends on."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from components.errors import UserError
from components.files import atomic_file

History = list[dict[str, float]]
# what torch.load and load_state_dict raise for a file that is cut short, altered or not theirs
UNUSABLE = (RuntimeError, LookupError, TypeError, AttributeError, ValueError, EOFError, pickle.UnpicklingError)


def save_resume(
    path: Path, key: str, step: int, model: nn.Module, optimizers: list[Optimizer], history: History
) -> None:
    """Write the state after `step` finished steps. Data order and augmentation are functions of (seed, step): no
    sampler or generator state is needed, and the schedule is a function of the step."""
    state = {
        "key": key,
        "step": step,
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "history": history,
    }
    content = io.BytesIO()  # torch would hide a full disk's error
    torch.save(state, content)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_resume(path: Path, key: str, model: nn.Module, optimizers: list[Optimizer]) -> tuple[int, History]:
    """Restore the state in place; returns the steps done and the history so far, (0, []) where there is no file."""
    if not path.exists():
        return 0, []
    start_over = f"Delete {path.parent} to start over."
    try:
        content = io.BytesIO(path.read_bytes())  # given a path, a damaged file would raise the OSError of a bad disk
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        if state["key"] != key:
            raise UserError(f"{path}: resume file of another run (key {state['key']}, expected {key}). {start_over}")
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    except UNUSABLE as error:
        raise UserError(f"{path}: not a usable resume file ({type(error).__name__}). {start_over}") from error
    return state["step"], state["history"]
