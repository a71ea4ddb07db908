"""Out of memory: which parameter to lower, and what would fit."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from components.data.config import AugmentationConfig
from components.errors import UserError
from components.model.gcrl import GCRL
from components.objectives.objective import Objective
from components.training.config import TrainingConfig
from components.training.data import step_generator
from components.training.distributed import Ranks
from components.training.step import Execution, pass_through
from components.training.views import Views, draw_views

GB = 1e9
OVERHEAD = 1.5  # of peak memory over what is kept for the backward pass: gradients, results that are in the making


@contextmanager
def memory_is_explained(
    model: GCRL,
    objective: Objective,
    images: np.ndarray,
    config: TrainingConfig,
    execution: Execution,
    device: torch.device,
) -> Iterator[None]:
    """Turn an allocation that failed into a UserError that says what to lower, and to what."""
    free = available_bytes(device)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that filled the memory
        model.zero_grad(set_to_none=True)
        raise UserError(_advice(model, objective, images, config, execution, free)) from None


def ran_out(error: BaseException) -> bool:
    """Whether an exception is a failed allocation, on a GPU or the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def available_bytes(device: torch.device) -> int:
    """What this process can still allocate on the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    if sys.platform != "linux":
        return sys.maxsize
    import resource

    def kilobytes(file: str, name: str) -> int:
        with Path(file).open() as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    free = kilobytes("/proc/meminfo", "MemAvailable") * 1024
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = kilobytes("/proc/self/status", "VmSize") * 1024
    return free if limit == resource.RLIM_INFINITY else min(free, limit - used)


def bytes_per_image(
    model: GCRL, objective: Objective, images: np.ndarray, config: TrainingConfig, execution: Execution
) -> float:
    """What a training pass takes for each image: all that is kept for its backward pass, found by passing two and four
    images, and what comes on top."""
    here = replace(execution, represent=partial(objective.represent, model), ranks=Ranks())

    def held(n: int) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        views = views_of(model, objective, images[:n], config)
        with saved_tensors_hooks(note, lambda tensor: tensor):
            pass_through(views, here)
        return sum(storages.values())

    return OVERHEAD * (held(4) - held(2)) / 2


def views_of(model: GCRL, objective: Objective, images: np.ndarray, config: TrainingConfig) -> Views:
    """What a training step would see of `images` (n, H, W, C), on the model's device."""
    pixels = torch.from_numpy(np.array(images)).to(model.start.device)
    generator = step_generator(0, 0, pixels.device)
    return draw_views(model, objective, pixels, config.views, AugmentationConfig(), generator, Ranks())


def _advice(
    model: GCRL, objective: Objective, images: np.ndarray, config: TrainingConfig, execution: Execution, free: int
) -> str:
    passed, views = config.micro_batch_size or config.batch_size // config.processes, objective.views(config.views)
    each = bytes_per_image(model, objective, images, config, execution)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    free -= 3 * weights  # their gradients, and an optimizer's two moments
    fitting = [n for n in range(1, passed) if passed % n == 0 and n * each < 0.9 * free]
    told = (
        f"out of memory on {next(model.parameters()).device.type}: a pass of {passed} images ({views} views "
        f"each) takes about {passed * each / GB:.2g} GB beside the weights, {max(0, free) / GB:.2g} GB were free. "
    )
    if not fitting:
        return f"{told}Lower model.width or model.encoder_layers, or free some memory."
    set_it = f"Set training.micro_batch_size to {fitting[-1]} (same result, more time)"
    return f"{told}{set_it}, or lower training.batch_size or model.width."
