"""iGPT, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ExactSettings, Words


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

    @staticmethod
    def term() -> type:
        from components.objectives.generative.autoregressive.term import Autoregressive

        return Autoregressive
