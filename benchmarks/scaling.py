"""How the cost of training grows, with one thing after another; everything else stays the same.

    python -m benchmarks.scaling [--only images resolution parameters processes] [--json FILE]

images      how many there are: a memory-mapped file of up to 1,000,000, sparse, so that it takes no room on the disk
            (reading it costs page faults, but no disk)
resolution  sides of 8 to 64 pixels
parameters  the model's sizes
processes   that share a batch, as a run starts them (training.processes), after their start

Step times are medians of turns, ratios of them within a part. Memory is the peak of a process of its own, without what
lay there before (benchmarks/memory.py); for several processes it is not measured. The variant is hybrid, images are
noise or blank: neither time nor memory depends on what they show.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measuring import Report, Row, add_shape, medians, parser_for, run, take_turns, turn_of
from benchmarks.memory import in_own_process, training_memory
from benchmarks.trainee import SIMCLR, VARIANTS, Trainee, model_config, training_config
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.training.loop import pretrain
from components.training.validation import PretrainData

PARTS = ("images", "resolution", "parameters", "processes")
PALETTE = np.zeros((1, 3), np.uint8)  # only its three channels matter to 8-bit likelihoods
HYBRID = VARIANTS["hybrid"]
WINDOW = 5  # steps that a run with several processes is timed over


def blank(folder: Path, count: int, size: int) -> Path:
    """A sparse .npy file of black images."""
    path = folder / f"{count}-{size}.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size, 3)).flush()
    return path


def noise(folder: Path, count: int, size: int) -> Path:
    path = folder / f"noise-{size}.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))
    return path


def points(part: str, options: argparse.Namespace, folder: Path) -> dict[str, tuple[Path, ModelConfig]]:
    """What is measured in a part, by increasing cost: a file of images and a model for each."""
    model = model_config(options.patch_size, options.size)
    count = 4 * options.batch_size
    if part == "images":
        return {f"{n:,}": (blank(folder, n, options.image_size), model) for n in options.images}
    if part == "resolution":
        return {f"{size}×{size}": (noise(folder, count, size), model) for size in options.resolutions}
    file = noise(folder, count, options.image_size)
    return {size: (file, model_config(options.patch_size, size)) for size in options.sizes}


def grow(part: str, options: argparse.Namespace, folder: Path, report: Report) -> None:
    training = training_config(options.batch_size)
    measured = points(part, options, folder)
    trainees = {
        name: Trainee(np.load(file, mmap_mode="r"), PALETTE, model, HYBRID, training)
        for name, (file, model) in measured.items()
    }
    found = take_turns({name: turn_of(trainee, options.turn) for name, trainee in trainees.items()}, options.rounds)
    middle = medians(found)
    first = next(iter(middle.values()))
    rows: list[Row] = []
    for name, (file, model) in measured.items():
        memory = in_own_process(training_memory, file, PALETTE, model, HYBRID, training)
        rows.append(
            {
                part: name,
                "model's parameters": trainees[name].parameters,
                "GFLOP/image": trainees[name].flops_per_image / 1e9,
                "step ms": 1000 * middle[name],
                "images/s": options.batch_size / middle[name],
                "time ÷ first": middle[name] / first,
                "peak GB": memory.get("peak GB"),
            }
        )
    report.add(part, rows, found)


def processes(options: argparse.Namespace, folder: Path, report: Report) -> None:
    images = np.load(noise(folder, 8 * options.batch_size, options.image_size), mmap_mode="r")
    labelled = np.array(images[:64]), np.arange(64) % 2
    model = model_config(options.patch_size, options.size)
    # three windows: in the first, kernels are chosen and memory is allocated; the last ends with an evaluation
    steps = 3 * WINDOW
    training = {"log_every": WINDOW, "evaluate_every": steps, "diagnose_every": steps, "checkpoint_seconds": 3600.0}

    def turn(count: int) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            trained = pretrain(
                build(Architecture.of(model, HYBRID, options.image_size, PALETTE), PALETTE, seed=0),
                PretrainData(images, labelled, labelled),
                HYBRID,
                training_config(options.batch_size, steps, processes=count, **training),
                SIMCLR,
                0,
                Path(place) / "resume.pt",
                "scaling",
                lambda step, metrics: None,
            )
        return trained.history[1]["images_per_second"]

    found = take_turns({str(n): partial(turn, n) for n in options.processes}, options.rounds)
    middle = medians(found)
    first = next(iter(middle.values()))
    rows: list[Row] = [
        {"processes": n, "images/s": rate, "images/s ÷ first": rate / first} for n, rate in middle.items()
    ]
    report.add("processes", rows, found)


def main() -> None:
    parser = parser_for(__doc__, rounds=3)
    add_shape(parser, batch_size=32)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--image-size", type=int, default=32, help="where the resolution stays")
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--sizes", nargs="+", choices=["tiny", "small", "base"], default=["tiny", "small"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turn", type=float, default=1.0, help="seconds of a turn, at least a step")
    options = parser.parse_args()
    report = Report(options)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        for part in options.only:
            if part == "processes":
                processes(options, Path(place), report)
            else:
                grow(part, options, Path(place), report)


if __name__ == "__main__":
    run(main)
