"""Our augmentation, whole batches as tensors, against torchvision's, an image at a time: images a second.

    python -m benchmarks.augmentation [--parquet FILES] [--json FILE]

Both draw SimCLR's set: a crop of 0.2 to 1 of the area with sides up to 4:3, flip, colour jitter of 0.4 (hue 0.1) with
probability 0.8, grey with 0.2; with blur, of half the images. All begin with uint8 and end with floats in [0, 1].
`training` is the whole of what a training step draws: views of every image and their quantised patches.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.images import add_arguments, open_images
from benchmarks.measuring import Report, Row, medians, parser_for, rate_of, run, seconds, take_turns
from benchmarks.trainee import VARIANTS, model_config
from components.data.augment import apply, draw
from components.data.config import AugmentationConfig
from components.model.build import Architecture, build
from components.model.tokens import to_unit
from components.objectives.base import TrainingSet
from components.objectives.objective import build_objective
from components.training.distributed import Ranks
from components.training.views import draw_views

REFERENCE = "torchvision v2, PIL images"
LOADED = 32  # images that a DataLoader's worker puts together
JITTER = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue


def ours(blur: bool) -> AugmentationConfig:
    brightness, contrast, saturation, hue = JITTER
    return AugmentationConfig(
        crop_min_side=0.2**0.5,
        crop_aspect=4 / 3,
        flip=True,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        greyscale_probability=0.2,
        blur_probability=0.5 if blur else 0.0,
        unaltered_probability=0.0,
    )


def theirs(size: int, blur: bool) -> Any:
    """torchvision's transforms of one image, PIL or a tensor (C, H, W)."""
    from torchvision.transforms import v2

    kernel = 2 * max(1, round(size / 20)) + 1
    blurred = [v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], 0.5)] if blur else []
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.2, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*JITTER)], 0.8),
            v2.RandomGrayscale(0.2),
            *blurred,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


class Transformed(Dataset[torch.Tensor]):
    """So many transformed images, the given ones over and over."""

    def __init__(self, images: list[Image.Image], transform: Any, count: int) -> None:
        self.images, self.transform, self.count = images, transform, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(self.images[index % len(self.images)])


def loaded_per_second(images: list[Image.Image], transform: Any, count: int) -> float:
    """Images a second from a DataLoader with a worker a core, once its workers have started."""
    dataset = Transformed(images, transform, count)
    batches = iter(DataLoader(dataset, LOADED, num_workers=os.cpu_count() or 1, drop_last=True))
    next(batches)
    began = time.perf_counter()
    left = sum(len(batch) for batch in batches)
    return left / (time.perf_counter() - began)


def contenders(pixels: np.ndarray, palette: np.ndarray, blur: bool, turn: float) -> dict[str, Callable[[], float]]:
    """Functions that return images a second, of uint8 images (N, H, W, 3)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size, n = pixels.shape[1], len(pixels)
    generator = torch.Generator(device).manual_seed(0)
    batch = torch.from_numpy(pixels).to(device)
    config = ours(blur)
    variant = VARIANTS["contrastive"]
    model = build(Architecture.of(model_config(1, None), variant, size, palette), palette, seed=0).to(device)
    objective = build_objective(variant, model, TrainingSet(pixels), seed=0)

    def finished() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def a_batch() -> None:
        apply(to_unit(batch), draw(config, n, 3, generator), config.padding)
        finished()

    def two_views() -> None:
        draw_views(model, objective, batch, 2, config, generator, Ranks())
        finished()

    transform = theirs(size, blur)
    samples = [Image.fromarray(image) for image in pixels]
    tensors = list(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())

    def one_by_one(images: list[Any]) -> None:
        for image in images:
            transform(image)

    cores = os.cpu_count() or 1
    count = round(turn * cores * n / seconds(partial(one_by_one, samples)))
    return {
        REFERENCE: rate_of(partial(one_by_one, samples), n, turn),
        "torchvision v2, tensors": rate_of(partial(one_by_one, tensors), n, turn),
        f"torchvision v2, PIL images, {cores} workers": partial(
            loaded_per_second, samples, transform, max(count, 2 * LOADED * cores)
        ),
        "ours": rate_of(a_batch, n, turn),
        "ours, in training": rate_of(two_views, 2 * n, turn),
    }


def main() -> None:
    parser = parser_for(__doc__, rounds=5)
    add_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--turn", type=float, default=1.0, help="seconds of a turn")
    options = parser.parse_args()
    report = Report(options, packages=("torchvision", "pillow"))
    with open_images(options, rgb=True) as prepared:
        pixels = np.array(prepared.images(prepared.pretrain_split)[: options.batch_size])
        for part, blur in (("without blur", False), ("with blur", True)):
            found = take_turns(contenders(pixels, prepared.palette, blur, options.turn), options.rounds)
            middle = medians(found)
            rows: list[Row] = [
                {part: name, "images/s": rate, f"÷ {REFERENCE}": rate / middle[REFERENCE]}
                for name, rate in middle.items()
            ]
            report.add(part, rows, found)


if __name__ == "__main__":
    run(main)
