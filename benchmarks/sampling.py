"""Sampling with kept keys and values against naive resampling, which passes the image so far anew for each patch.

    python -m benchmarks.sampling --out sampling.json

Prints, for images of more and more patches, the seconds of both (the best of some interleaved runs), and beside their
ratio the one that the arithmetic promises: the floating-point operations of both, counted. Both draw the same images.
Weights are random: they change nothing about the time. The default is the pixel-token form, one position a pixel; with
patches most of the time goes into the local head, which keeps nothing: --patch-size 4 --likelihood logistic_mixture.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from components.files import write_json
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.model.sampling import sample
from components.objectives.config import VariantConfig
from components.training.device import describe_hardware


@torch.no_grad()
def naive_sample(model: GCRL, n: int, generator: torch.Generator) -> Tensor:
    """What `sample` draws, without anything kept from one patch to the next."""
    assert model.head is not None
    device = model.start.device
    tokens = torch.zeros(n, model.patches, *model.head.shape, dtype=torch.long, device=device)
    for t in range(model.patches):
        context = model.contexts(model.encode(tokens[:, :t]))[:, -1]
        patch = tokens[:, t]
        for i, index in enumerate(itertools.product(*map(range, model.head.shape))):
            logits = model.head.log_probabilities(context, patch, index)
            drawn = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)
            patch.view(n, -1)[:, i] = drawn[:, 0].to(device)
    return tokens


def measure(model: GCRL, n: int, runs: int) -> dict[str, float]:
    """Seconds and operations of n images, both ways."""
    ways: dict[str, Callable[[GCRL, int, torch.Generator], Tensor]] = {"cached": sample, "naive": naive_sample}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    flops, drawn = {}, {}
    for way, draw in ways.items():  # counting also warms up
        with FlopCounterMode(display=False) as counter:
            drawn[way] = draw(model, n, torch.Generator().manual_seed(0))
        flops[way] = counter.get_total_flops()
    assert (drawn["cached"] == drawn["naive"]).float().mean() > 0.99  # rounding may turn a draw, and all after it
    for _ in range(runs):
        for way, draw in ways.items():
            started = time.perf_counter()
            draw(model, n, torch.Generator().manual_seed(0))
            seconds[way].append(time.perf_counter() - started)
    best = {way: min(times) for way, times in seconds.items()}
    return {
        "patches": model.patches,
        "images": n,
        "cached_seconds": best["cached"],
        "naive_seconds": best["naive"],
        "ratio": best["naive"] / best["cached"],
        "promised_ratio": flops["naive"] / flops["cached"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("sampling.json"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16], help="image sizes in pixels")
    parser.add_argument("--patch-size", type=int, default=1)
    parser.add_argument("--likelihood", default="palette", choices=["palette", "logistic_mixture", "categorical"])
    parser.add_argument("--size", choices=["tiny", "small", "base"], help="of the model; default: the CPU's")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = ModelConfig(options.patch_size, size=options.size, likelihood=options.likelihood)
    palette = np.arange(3 * 256, dtype=np.uint8).reshape(-1, 3)
    rows = []
    print("| patches | images | cached s | naive s | ratio | promised |\n|---|---|---|---|---|---|")
    for size in options.sizes:
        architecture = Architecture.of(config, VariantConfig(1, 0), size, palette)
        model = build(architecture, palette, 0).to(device).eval()
        row = measure(model, options.images, options.runs)
        rows.append(row)
        print(
            f"| {row['patches']} | {row['images']} | {row['cached_seconds']:.2f} | {row['naive_seconds']:.2f} "
            f"| {row['ratio']:.1f} | {row['promised_ratio']:.1f} |",
            flush=True,
        )
    write_json(options.out, {"hardware": describe_hardware(device), "model": asdict(config), "rows": rows})


if __name__ == "__main__":
    main()
