"""Sampling with kept keys and values against naive resampling, which passes the image so far anew for each patch.

    python -m benchmarks.sampling [--sizes 4 8 16] [--json FILE]

Prints, for images of more and more patches, the seconds of both, which take turns, and beside their ratio the one that
the arithmetic promises: the floating-point operations of both, counted. Both draw the same images.
Weights are random: they change nothing about the time. The default is the pixel-token form, one position a pixel; with
patches most of the time goes into the local head, which keeps nothing: --patch-size 4 --likelihood logistic_mixture.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import Report, Row, medians, parser_for, run, seconds, take_turns
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.model.sampling import sample
from components.objectives.config import VariantConfig


@torch.no_grad()
def naive_sample(model: GCRL, n: int, generator: torch.Generator) -> Tensor:
    """What `sample` draws, without anything kept from one patch to the next."""
    assert model.head is not None
    device = model.start.device
    tokens = torch.zeros(n, model.patches, *model.head.shape, dtype=torch.long, device=device)
    uniform = torch.rand(n, model.patches, math.prod(model.head.shape), generator=generator).to(device)
    for t in range(model.patches):
        context = model.contexts(model.encode(tokens[:, :t]))[:, -1]
        patch = tokens[:, t]
        for i, index in enumerate(itertools.product(*map(range, model.head.shape))):
            logits = model.head.log_probabilities(context, patch, index)
            reached = logits.softmax(-1).cumsum(-1)
            level = uniform[:, t, i, None] * reached[:, -1:]
            patch.view(n, -1)[:, i] = torch.searchsorted(reached, level, right=True)[:, 0]
    return tokens


def measure(model: GCRL, n: int, rounds: int) -> tuple[Row, dict[str, list[float]]]:
    """Seconds and operations of n images, both ways."""
    ways: dict[str, Callable[[GCRL, int, torch.Generator], Tensor]] = {"cached": sample, "naive": naive_sample}
    flops, drawn = {}, {}

    def again(draw: Callable[[GCRL, int, torch.Generator], Tensor]) -> Tensor:
        return draw(model, n, torch.Generator().manual_seed(0)).cpu()  # a GPU has finished

    for way, draw in ways.items():  # counting also warms up
        with FlopCounterMode(display=False) as counter:
            drawn[way] = again(draw)
        flops[way] = counter.get_total_flops()
    assert (drawn["cached"] == drawn["naive"]).float().mean() > 0.99  # rounding may turn a draw, and all after it
    found = take_turns({way: partial(seconds, partial(again, draw)) for way, draw in ways.items()}, rounds)
    middle = medians(found)
    row: Row = {
        "patches": model.patches,
        "cached s": middle["cached"],
        "naive s": middle["naive"],
        "ratio": middle["naive"] / middle["cached"],
        "promised": flops["naive"] / flops["cached"],
    }
    return row, {f"{way}, {model.patches} patches": times for way, times in found.items()}


def main() -> None:
    parser = parser_for(__doc__, rounds=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16], help="image sizes in pixels")
    parser.add_argument("--patch-size", type=int, default=1)
    parser.add_argument("--likelihood", default="palette", choices=["palette", "logistic_mixture", "categorical"])
    parser.add_argument("--size", choices=["tiny", "small", "base"], help="of the model; default: the CPU's")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    report = Report(options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = ModelConfig(options.patch_size, size=options.size, likelihood=options.likelihood)
    palette = np.arange(3 * 256, dtype=np.uint8).reshape(-1, 3)
    rows: list[Row] = []
    rounds: dict[str, list[float]] = {}
    for size in options.sizes:
        architecture = Architecture.of(config, VariantConfig(1, 0), size, palette)
        model = build(architecture, palette, 0).to(device).eval()
        row, found = measure(model, options.images, options.rounds)
        rows.append(row)
        rounds |= found
    report.add("sampling", rows, rounds)


if __name__ == "__main__":
    run(main)
