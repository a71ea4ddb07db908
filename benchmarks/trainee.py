"""Our own training, a few steps at a time, so that benchmarks can take turns with others."""

from pathlib import Path

import numpy as np
import torch

from components.data.config import AugmentationConfig
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.model.encode import encode_images
from components.model.flops import flops_per_view
from components.objectives.config import VariantConfig
from components.training.config import TrainingConfig
from components.training.data import batch_order, batches, step_generator
from components.training.device import choose_device
from components.training.loop import Run, execution_of, first_state, take_step
from components.training.optimizer import effective_learning_rate, schedule
from components.training.ranks import Ranks
from components.training.views import SCORED, draw_views, scored_patches


class Trainee:
    """A variant in training: `train(steps)` goes on where it stopped, `features` is what a probe reads."""

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        palette: np.ndarray,
        model: ModelConfig,
        variant: VariantConfig,
        training: TrainingConfig,
        augmentation: AugmentationConfig,
        seed: int = 0,
    ) -> None:
        self.name, self.images = name, images
        self.run = Run(variant, training, augmentation, seed, Path(), "")
        self.device = choose_device(training)
        self.architecture = Architecture.of(model, variant, images.shape[1], palette)
        self.state = first_state(build(self.architecture, palette, seed), self.run)
        self.execution = execution_of(self.state.model, training, self.device, Ranks())
        self.order = batch_order(len(images), training.batch_size, seed)

    def train(self, steps: int) -> None:
        """Take so many optimizer steps, data pipeline included; returns when the device has done them."""
        config = self.run.config
        remaining = range(self.state.step, self.state.step + steps)
        for step, pixels in zip(
            remaining,
            batches(self.images, self.order, remaining, slice(0, config.batch_size), self.device),
            strict=True,
        ):
            rate = effective_learning_rate(config) * schedule(config, min(step, config.steps - 1))
            take_step(self.state, pixels, self.run, self.execution, rate, diagnose=False)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def pause(self) -> None:
        """Nothing of ours runs between two calls of `train`."""

    def augment(self, pixels: torch.Tensor, step: int) -> None:
        """The two views of a batch, and nothing else of a step."""
        generator = step_generator(self.run.seed, step, self.device)
        draw_views(self.state.model, pixels, 2, self.run.augmentation, generator, Ranks())

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features float32 (N, D) of uint8 images (N, H, W, C)."""
        return encode_images(self.state.model.eval(), images, self.device)[0].numpy()

    @property
    def flops_per_image(self) -> float:
        """Of one training step, an image with all its views."""
        share = scored_patches(self.run.variant.generative.scored_share, self.state.model.patches)
        encoder, decoder = flops_per_view(self.architecture, share).training
        return self.run.config.views * encoder + SCORED * decoder
