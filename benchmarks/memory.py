"""What memory training takes, against the estimate that a run tells before it starts.

    python -m benchmarks.memory [--batch-sizes 16 64 256] [--variant hybrid] [--size tiny] [--json FILE]

Each batch size trains a few steps in a process of its own, whose peak is measured: resident memory on a CPU (Linux),
allocated memory on a GPU, in both cases without what lay there before the model was made. `–`: it did not fit.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.images import add_arguments, open_images
from benchmarks.measuring import Report, Row, add_shape, parser_for, run
from benchmarks.trainee import VARIANTS, Trainee, model_config, training_config
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig
from components.training.config import TrainingConfig
from components.training.memory import ran_out
from components.training.summary import describe

STEPS = 3  # the optimizer's state is there after the first


def training_memory(
    images: Path, palette: np.ndarray, model: ModelConfig, variant: VariantConfig, training: TrainingConfig
) -> dict[str, float]:
    """Peak and estimated memory in GB of training on the images of an .npy file; for a process of its own."""
    pixels = np.load(images, mmap_mode="r")
    before = _resident("VmRSS")
    trainee = Trainee(pixels, palette, model, variant, training)
    trainee.train(STEPS)
    on_gpu = trainee.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else _resident("VmHWM") - before
    told = describe(trainee.state.model, trainee.state.objective, trainee.architecture, training)
    return {"peak GB": peak / 1e9, "estimated GB": float(told["estimated_memory_gb"])}


def in_own_process(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """What a function returns in a new process; nothing where its memory ran out."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, BrokenProcessPool) or ran_out(error):  # the kernel ended it, or it noticed itself
                return {}
            raise


def _resident(name: str) -> int:
    """Bytes. Not getrusage's peak, which a process inherits from the one that started it."""
    with Path("/proc/self/status").open() as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = parser_for(__doc__)
    add_arguments(parser)
    add_shape(parser)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--variant", choices=list(VARIANTS), default="hybrid")
    options = parser.parse_args()
    report = Report(options)
    model, variant = model_config(options.patch_size, options.size), VARIANTS[options.variant]
    rows: list[Row] = []
    with open_images(options) as prepared:
        file = prepared.root / f"{prepared.pretrain_split}.npy"
        for batch in options.batch_sizes:
            training = training_config(batch)
            found = in_own_process(training_memory, file, prepared.palette, model, variant, training)
            ratio = found["estimated GB"] / found["peak GB"] if found else None
            rows.append({"batch": batch, "peak GB": None, "estimated GB": None, **found, "estimated ÷ peak": ratio})
    report.add("memory", rows)


if __name__ == "__main__":
    run(main)
