"""iGPT, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ExactSettings, Task, Words, positive


@dataclass(frozen=True)
class RasterSettings(ExactSettings):
    """An exact likelihood in raster order, at the decoder's exit."""

    condition_on_augmentation: bool = True  # the decoder, never the encoder, is told a view's parameters
    scored_views: Literal[1, 2] = 2
    scored_ratio: float = 1.0  # a training step scores this share of each view's patches, drawn at random: unbiased

    def __post_init__(self) -> None:
        if not 0 < self.scored_ratio <= 1:
            raise ValueError("scored_ratio must lie in (0, 1]")

    def scored(self, patches: int) -> int:
        """How many of a view's patches a step scores: the nearest number to the ratio, at least one."""
        return max(1, round(self.scored_ratio * patches))


@dataclass(frozen=True)
class AutoregressiveConfig(RasterSettings):
    """The likelihood of a transformer."""

    words = Words(
        label="iGPT",
        learns="predicting images piece by piece",
        what="on patches, the exact likelihood in raster order",
        when="the default: one causal pass serves both losses",
        cost="–",
        papers={"Chen et al. 2020": "https://proceedings.mlr.press/v119/chen20s.html"},
    )

    name: Literal["autoregressive"] = "autoregressive"
    image_size: int | None = None  # of the reduced picture that the likelihood is of; null: the picture as it is
    patch_size: int = 4  # side of the reduced picture's patches

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "patch_size", *(["image_size"] if self.image_size is not None else []))
        if self.image_size is not None and self.image_size % self.patch_size:
            raise ValueError(f"patch_size ({self.patch_size}) must divide image_size ({self.image_size})")

    def check(self, task: Task) -> None:
        """The reduced picture's pixels are means of whole squares."""
        if self.image_size is not None and (task.image_size % self.image_size or self.image_size == task.image_size):
            sizes = [n for n in range(self.patch_size, task.image_size, self.patch_size) if task.image_size % n == 0]
            choices = f"one of {', '.join(map(str, sizes))}" if sizes else "none, which scores the picture as it is"
            raise ValueError(
                f"image_size: {self.image_size} is no whole part of data.image_size ({task.image_size}). With patches "
                f"of {self.patch_size}×{self.patch_size} pixels choose {choices}."
            )

    @staticmethod
    def term() -> type:
        from components.objectives.generative.autoregressive.term import Autoregressive

        return Autoregressive
