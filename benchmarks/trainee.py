"""Our own training, a few steps at a time, so that benchmarks can take turns with others."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from components.data.config import AugmentationConfig
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.model.encode import encode_images
from components.objectives.config import VariantConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.objective import build_objective
from components.training.config import TrainingConfig
from components.training.data import batch_order, batches
from components.training.device import choose_device, choose_dtype
from components.training.distributed import Ranks
from components.training.loop import Run, execution_of, first_state, take_step
from components.training.optimizer import effective_learning_rate, schedule
from components.training.summary import flops_per_image
from components.training.validation import PretrainData

# the recipe of presets/cifar10-cpu.yaml
SHAPE = {
    "heads": 4,
    "encoder_layers": 5,
    "decoder_layers": 2,
    "projection_width": 512,
    "projection_size": 128,
    "mixture_components": 5,
}
VARIANTS = {
    "hybrid": VariantConfig(0.33, 1.0, generative=AutoregressiveConfig(scored_views=1, scored_ratio=0.25)),
    "generative": VariantConfig(1.0, 0.0, generative=AutoregressiveConfig(scored_views=1, scored_ratio=0.25)),
    "contrastive": VariantConfig(0.0, 1.0),
}
LIKELIHOOD = "logistic_mixture"
LEARNING_RATE = 0.004
SIMCLR = AugmentationConfig(
    crop_min_side=0.45,
    flip=True,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    greyscale_probability=0.2,
    unaltered_probability=0.2,
)
ENDLESS = 1_000_000  # steps of a training whose speed alone is of interest


def model_config(patch_size: int, size: str | None, likelihood: str = LIKELIHOOD) -> ModelConfig:
    """A model of a named size, or without one the recipe's."""
    shape = {"size": size} if size else SHAPE
    return ModelConfig(patch_size, **shape, likelihood=likelihood)  # type: ignore[arg-type]


def training_config(batch_size: int, steps: int = ENDLESS, **others: object) -> TrainingConfig:
    """The recipe at this batch size, warm-up in a tenth of the steps; `others` as in TrainingConfig."""
    recipe = {"learning_rate": LEARNING_RATE, "warmup_steps": steps // 10, **others}
    return TrainingConfig(steps, batch_size, **recipe)  # type: ignore[arg-type]


class Trainee:
    """A variant in training: `train(steps)` goes on where it stopped, `features` is what a probe reads."""

    def __init__(
        self,
        images: np.ndarray,
        palette: np.ndarray,
        model: ModelConfig,
        variant: VariantConfig,
        training: TrainingConfig,
        augmentation: AugmentationConfig = SIMCLR,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.run = Run(partial(build_objective, variant), training, augmentation, seed, Path(), "")
        self.device = choose_device(training)
        self.architecture = Architecture.of(model, variant, images.shape[1], palette)
        nobody = (images[:0], np.empty(0, np.int64))  # no validation here
        data = PretrainData(images, bank=nobody, val=nobody)
        self.state = first_state(build(self.architecture, palette, seed), data, self.run)
        self.execution = execution_of(self.state.model, self.state.objective, training, self.device, Ranks())
        order, self.order = (batch_order(len(images), training.batch_size, seed) for _ in range(2))
        # one reader for all calls of `train`: on a GPU a new one would copy the whole set again
        self.pixels = batches(images, order, range(training.steps), slice(0, training.batch_size), self.device)

    def train(self, steps: int) -> None:
        """Take so many optimizer steps, data pipeline included; returns when the device has done them."""
        config = self.run.config
        for _ in range(steps):
            rate = effective_learning_rate(config) * schedule(config, self.state.step)
            step = self.state.step
            pixels, images = next(self.pixels), self.order(step)
            take_step(self.state, pixels, images, self.run, self.execution, rate, diagnose=False, place=step)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def pause(self) -> None:
        """Nothing of ours runs between two calls of `train`."""

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features float32 (N, D) of uint8 images (N, H, W, C)."""
        return encode_images(self.state.model.eval(), images, self.device)[0].numpy()

    def nats_per_image(self, images: np.ndarray) -> float | None:
        """Mean negative log-likelihood of uint8 images (N, H, W, C); None without a decoder. A palette's is that of the
        quantised image, no other palette's nor that of 8-bit values."""
        nll = encode_images(self.state.model.eval(), images, self.device)[1]
        return None if nll is None else float(nll.mean()) * images.shape[1] * images.shape[2]

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.state.model.parameters())

    @property
    def dtype(self) -> torch.dtype:
        return choose_dtype(self.run.config, self.device)

    @property
    def flops_per_image(self) -> float:
        """Of one training step, an image with all its views."""
        return flops_per_image(self.state.model, self.state.objective, self.images, self.run.config)
