"""How a term of the objective declares itself: its name, its settings, words for people, and what it needs.

A declaration is a frozen dataclass whose `name` has one value. No tensor library is imported here or in one:
params.yaml is checked by them, and torch takes longer to import than all the rest of a `make run` with nothing to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

MORE_THAN_FEATURES = "needs the encoder's positions, which are not available beside a generative term"


@dataclass(frozen=True)
class Words:
    """A term in words: for the report page `learns`, for docs/methods.md, in Markdown, the others."""

    label: str  # its name in the field
    learns: str  # the end of "Learns from …"
    what: str
    when: str  # to use it
    cost: str  # of a training step, beside the first term of its kind
    papers: Mapping[str, str] = field(default_factory=dict)  # authors and year → address


@dataclass(frozen=True)
class Task:
    """What a term is to be trained on, as far as it is known: the images and their labels once they are prepared."""

    side: int  # patches a side of an image
    image_size: int  # side of an image in pixels
    channels: int
    likelihood: str  # the model's
    encoder_layers: int
    rotate_degrees: float = 0.0  # by which views are turned at random, at most
    images: int | None = None
    labels: bool | None = None  # whether any image has one

    @property
    def patches(self) -> int:
        """The patches of an image."""
        return self.side**2


class TermSettings:
    """What every term declares besides the keys that params.yaml may set."""

    name: str
    section: ClassVar[str]  # of a variant in params.yaml
    kind: ClassVar[str]  # what a variant of this term alone learns by: the room that it lies in
    words: ClassVar[Words]
    # its variants in `make zoo` and their keys, which suit some hundred steps; none: one of its name, all by default
    zoo: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})

    @staticmethod
    def term() -> type[Any]:
        """The class that computes it, made of (settings, model, training set). Its import is that of torch."""
        raise NotImplementedError

    def check(self, task: Task) -> None:
        """Raises ValueError, "KEY: why and what to do.", where the term cannot be trained on this."""


class ContrastiveSettings(TermSettings):
    """A term that compares views and images."""

    section = "contrastive"
    kind = "contrastive"
    views: int | None = None  # of an image, in place of training.views
    unaltered: ClassVar[int | None] = None  # so many of them, the first, stay as they are drawn; None: all
    projects: ClassVar[bool] = True  # whether it reads projections
    alone: ClassVar[str | None] = None  # why no generative term can be trained beside it


class GenerativeSettings(TermSettings):
    """A term that predicts pixels, of so many views of each image; all views are contrasted."""

    section = "generative"
    kind = "generative"
    scored_views: int
    exact: ClassVar[bool] = False  # whether it trains the model's own decoder; otherwise it owns its decoder
    bidirectional: ClassVar[bool] = True  # whether the encoder that it trains sees all patches from everywhere


class ExactSettings(GenerativeSettings):
    """A term whose loss is the exact likelihood, at the exit of the model's own decoder."""

    exact = True
    bidirectional = False
    condition_on_augmentation: bool  # the decoder, never the encoder, is told a view's parameters
    image_size: int | None = None  # to which a picture is reduced before its likelihood is taken; null: as it is
    patch_size: int = 4  # of the reduced picture
    orders: int = 0  # whose mean the likelihood of the trained model is; 0: the raster's alone

    def filters_beside(self, width: int) -> int:
        """The filters of PixelCNN++'s convolutions in a model of this width; 0: a transformer."""
        return 0


def positive(config: object, *names: str) -> None:
    """Raises ValueError where a setting of this name is not positive."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be positive")


def share(config: object, *names: str) -> None:
    """Raises ValueError where a setting of this name is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must lie in [0, 1)")


def between_0_and_1(config: object, *names: str) -> None:
    """Raises ValueError where a setting of this name is not in (0, 1)."""
    for name in names:
        if not 0 < getattr(config, name) < 1:
            raise ValueError(f"{name} must lie between 0 and 1, both exclusive")


def fewer_than_images(clusters: int, images: int | None) -> None:
    """Raises ValueError where there are more clusters than images, of which None are not known yet."""
    if images is not None and images < clusters:
        raise ValueError(
            f"clusters: {clusters}, but there are only {images} images to learn from. Lower it to a small part of "
            "that: a cluster should hold many images."
        )
