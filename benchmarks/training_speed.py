"""How fast our training is: step time and images a second, and what share of the machine's matrix products that is.

    python -m benchmarks.training_speed [--only objectives tokens heads] [--compile] [--parquet FILES] [--json FILE]

objectives  hybrid, contrastive-only and generative-only
tokens      patches against pixels, at the same width and depth, both with the palette likelihood
heads       the likelihoods of a patch, all patches scored or a quarter of them
compile     (--compile) torch.compile against eager, hybrid; on a CPU it needs a C++ compiler and a minute

A step is the whole of it: reading the batch, two views an image, forward and backward pass, optimizer. The operations
are counted in a real pass (`components.training.summary`). They are compared with a large matrix product in the same
precision that takes its turn like every contender, or with the data sheet's number (--peak); on a GPU that share is
known as MFU. Ratios compare step times with the first row's. The JSON holds every round too: seconds a step,
and for the matrix product 10¹² operations a second. Pixel tokens take some 3 GB of memory at the default batch.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.images import add_arguments, open_images
from benchmarks.measuring import Report, Row, add_shape, medians, parser_for, run, seconds, take_turns, turn_of
from benchmarks.trainee import LIKELIHOOD, VARIANTS, Trainee, model_config, training_config
from components.data.prepared import Prepared
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig

Setup = tuple[ModelConfig, VariantConfig, bool | None]  # the last: compiled or not; None: as by default
MATMUL = "matrix product"


def setups(part: str, options: argparse.Namespace) -> dict[str, Setup]:
    """The contenders of a part; the first is what the others are compared with."""
    hybrid = VARIANTS["hybrid"]

    def model(likelihood: str = LIKELIHOOD, patch_size: int = options.patch_size) -> ModelConfig:
        return model_config(patch_size, options.size, likelihood)

    if part == "objectives":
        return {name: (model(), VARIANTS[name], None) for name in ("contrastive", "hybrid", "generative")}
    if part == "tokens":
        patch = f"patches {options.patch_size}×{options.patch_size}"
        whole = replace(hybrid, generative=AutoregressiveConfig())  # the pixel form has no patches to choose among
        return {patch: (model("palette"), whole, None), "pixels": (model("palette", 1), whole, None)}
    if part == "heads":
        return {
            f"{likelihood}, {ratio:.0%} scored": (
                model(likelihood),
                replace(hybrid, generative=AutoregressiveConfig(scored_ratio=ratio)),
                None,
            )
            for likelihood in ("palette", "logistic_mixture", "categorical")
            for ratio in (1.0, 0.25)
        }
    return {"eager": (model(), hybrid, False), "compiled": (model(), hybrid, True)}


def measure(part: str, options: argparse.Namespace, prepared: Prepared) -> tuple[list[Row], dict[str, list[float]]]:
    images = prepared.images(prepared.pretrain_split)
    trainees = {}
    for name, (model, variant, compiled) in setups(part, options).items():
        others = {} if compiled is None else {"compile": compiled}
        training = training_config(options.batch_size, **others)
        trainees[name] = Trainee(images, prepared.palette, model, variant, training)
    first = next(iter(trainees.values()))
    turns = {name: turn_of(trainee, options.turn) for name, trainee in trainees.items()}
    turns[MATMUL] = matmul_tflops(first.dtype, first.device)
    found = take_turns(turns, options.rounds)
    middle = medians(found)
    peak = 1e12 * (options.peak or middle[MATMUL])
    reference = next(iter(trainees))
    rows: list[Row] = []
    for name, trainee in trainees.items():
        rate = trainee.flops_per_image * options.batch_size / middle[name]
        rows.append(
            {
                part: name,
                "step ms": 1000 * middle[name],
                "images/s": options.batch_size / middle[name],
                f"time ÷ {reference}": middle[name] / middle[reference],
                "GFLOP/image": trainee.flops_per_image / 1e9,
                "GFLOP/s": rate / 1e9,
                "of peak %": 100 * rate / peak,
            }
        )
    precision = str(first.dtype).removeprefix("torch.")
    what = f"{'data sheet' if options.peak else MATMUL} ({precision})"
    return [*rows, {part: what, "GFLOP/s": peak / 1e9, "of peak %": 100.0}], found


def matmul_tflops(dtype: torch.dtype, device: torch.device) -> Callable[[], float]:
    """A function that measures 10¹² floating-point operations a second of a large matrix product."""
    size, times = (8192, 20) if device.type == "cuda" else (2048, 10)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(times):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    multiply()
    return lambda: 2e-12 * size**3 * times / seconds(multiply)


def main() -> None:
    parts = ("objectives", "tokens", "heads")
    parser = parser_for(__doc__, rounds=5)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--compile", action="store_true", help="also compare eager with compiled")
    add_shape(parser, batch_size=32)
    parser.add_argument("--turn", type=float, default=1.0, help="seconds of a turn, at least a step")
    parser.add_argument("--peak", type=float, help="10¹² operations a second by the data sheet")
    options = parser.parse_args()
    report = Report(options)
    with open_images(options) as prepared:
        for part in [*options.only, *(["compile"] if options.compile else [])]:
            report.add(part, *measure(part, options, prepared))


if __name__ == "__main__":
    run(main)
