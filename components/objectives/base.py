"""What a term of the objective is: two base classes, and what a term is given.

A term is a module. Whatever it owns besides its configuration (a queue, a bank, an averaged copy of the encoder, a
predictor) is a buffer, parameter or submodule of it: then it is saved in the resume file and restored bit for bit, lies
on the run's device, and is trained where it asks for a gradient. Nothing of it is in the model's file. Every process
holds the same, because every process computes the contrastive term of the whole batch.
"""

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from components.model.gcrl import GCRL

Loss = tuple[Tensor, dict[str, Tensor]]  # a scalar that carries a gradient, and metrics that carry none
Config = TypeVar("Config")


@dataclass(frozen=True)
class TrainingSet:
    """What is pretrained on. `labels` are int64 (N,), −1 where an image has none; None where no image has one."""

    images: np.ndarray  # uint8 (N, H, W, C), perhaps memory-mapped
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Batch:
    """What a contrastive term sees of a step: the whole batch, however many processes and passes share it."""

    features: Tensor  # (V, B, ...), what the term's `represent` gave; carries a gradient, like the projections of it
    projections: Tensor  # (V, B, P), L2-normalised; of a model without a projection head, a student, the features
    images: Tensor  # (B,), their indices in the training set
    generator: torch.Generator  # to draw from: the same numbers in every process, and after a resume
    observed: Tensor | None = None  # (V, B, ...), what the term's `observe` gave for each view; carries no gradient


class ContrastiveTerm(nn.Module, Generic[Config]):
    """A loss that compares views and images. Made before the first step from the model as it is then.

    Raises:
        ConfigError: the term cannot be had of this training set.
    """

    observes = False  # whether it has an `observe`

    def __init__(self, config: Config, model: GCRL, data: TrainingSet) -> None:
        super().__init__()
        self.config = config

    def draw(self, images: int, generator: torch.Generator) -> Tensor | None:
        """Whatever `alter` needs at random for each image of a batch (images, ...), on the generator's device."""
        return None

    def alter(self, views: Tensor, drawn: Tensor | None) -> Tensor:
        """Views (V, b, C, H, W) in [0, 1] as the encoder is to see them, the same shape; `drawn` (b, ...) is what
        `draw` gave. What a generative term scores, the first `unaltered` of the configuration, stays as it is."""
        return views

    def represent(self, model: GCRL, tokens: Tensor) -> Tensor:
        """What the term reads (n, ...) of views (n, T, S, ...); by default their features (n, D). Beside a
        generative term features are all there is: a term that reads more says in its settings why it is `alone`."""
        return features(model, tokens)

    def pooled(self, represented: Tensor) -> Tensor:
        """The features (V, B, D) in what `represent` gave of views (V, B, ...): those that are projected."""
        return represented

    def observe(self, tokens: Tensor) -> Tensor:
        """What the term wants to know (n, ...) of views (n, T, S, ...) beyond their features, without a gradient."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Loss:
        """The unweighted loss of a whole batch, once a step. Its backward pass may read the term's buffers: what the
        batch changes of them, it changes in `after_step`."""
        raise NotImplementedError

    def after_step(self, model: GCRL, progress: float) -> None:
        """Follow the model after an optimizer step: a queue or bank moves on here. `progress` is the finished share of
        all steps, in (0, 1]."""


class GenerativeTerm(nn.Module, Generic[Config]):
    """A loss that is a mean over views, so that parts of a batch can be computed one after the other.

    A term defines `values`; one whose pass gives the features, too, defines `represent` instead. Without an exact
    likelihood it is called for validation images as well: without a gradient, and in evaluation mode.
    """

    def __init__(self, config: Config, model: GCRL, data: TrainingSet) -> None:
        super().__init__()
        self.config = config

    def draw(self, views: int, images: int, generator: torch.Generator) -> Tensor | None:
        """Whatever is drawn at random for each scored view of a batch (views, images, ...), on the generator's device:
        masks, orders."""
        return None

    def represent(
        self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None, scored: int
    ) -> tuple[Tensor, Tensor]:
        """Features (n, D) of views (n, T, S, ...), and of the first `scored` what `forward` reduces (scored, ...).

        `condition` (scored, A) are the parameters of their augmentation, `drawn` (scored, ...) what `draw` gave. The
        features must not depend on those: they are those that `features` gives, whatever the pass for `forward` sees.
        """
        return features(model, tokens), self.values(model, tokens[:scored], condition, drawn)

    def values(self, model: GCRL, tokens: Tensor, condition: Tensor, drawn: Tensor | None) -> Tensor:
        """What `forward` reduces (n, ...) of views (n, T, S, ...) alone, where nobody wants their features."""
        return self.represent(model, tokens, condition, drawn, len(tokens))[1]

    def forward(self, values: Tensor) -> Loss:
        """The unweighted loss of what `represent` gave."""
        raise NotImplementedError


def features(model: GCRL, tokens: Tensor) -> Tensor:
    """The encoder's features (n, D) of views (n, T, S, ...)."""
    return model.features(tokens)


def view_accuracy(projections: Tensor) -> Tensor:
    """How often the view nearest to a view, among all others of a batch (V, B, P), is of the same image."""
    images = projections.shape[1]
    z = projections.detach().flatten(0, 1)
    nearest = (z @ z.T).fill_diagonal_(-2.0).argmax(1)  # (V·B,)
    return (nearest % images == torch.arange(len(z), device=z.device) % images).float().mean()


def feature_size(model: GCRL) -> int:
    """D, the length of a model's features."""
    return model.feature_size


def projection_shape(model: GCRL) -> tuple[int, int]:
    """The width of the projection head's hidden layer, and P, the length of a projection."""
    assert model.projection is not None
    linear = [layer for layer in model.projection if isinstance(layer, nn.Linear)]
    return linear[0].out_features, linear[-1].out_features


def fresh_head(model: GCRL) -> nn.Module:
    """A projection head of the model's shape with first weights of its own."""
    head = copy.deepcopy(model.projection)
    assert head is not None
    for layer in head.modules():
        if isinstance(layer, nn.Linear | nn.BatchNorm1d):
            layer.reset_parameters()
    return head
