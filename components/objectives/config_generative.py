"""The generative terms' settings. No tensor library is imported here.

Each is a frozen dataclass whose `name` has one value; it is listed in the union at the end. It says of its term

- `exact`: whether it trains the model's own decoder, which gives an exact likelihood. A term that does not owns its
  decoder, and the model is an encoder alone;
- `bidirectional`: whether the encoder that it trains sees all patches from everywhere;
- `scored_views`, a setting: how many views of each image a training step scores. All views are contrasted.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.config_checks import positive


@dataclass(frozen=True)
class AutoregressiveConfig:
    """The exact likelihood in raster order, at the decoder's exit."""

    exact: ClassVar[bool] = True
    bidirectional: ClassVar[bool] = False

    name: Literal["autoregressive"] = "autoregressive"
    tell_decoder: bool = True  # give the decoder (never the encoder) the view's augmentation parameters
    scored_views: Literal[1, 2] = 2
    scored_share: float = 1.0  # a training step scores this share of each view's patches, drawn at random: unbiased

    def __post_init__(self) -> None:
        if not 0 < self.scored_share <= 1:
            raise ValueError("scored_share must lie in (0, 1]")

    def scored(self, patches: int) -> int:
        """How many of a view's patches a step scores: the nearest number to the share, at least one."""
        return max(1, round(self.scored_share * patches))


@dataclass(frozen=True)
class PermutedConfig:
    """The exact likelihood in any order: training draws one for each view."""

    exact: ClassVar[bool] = True
    bidirectional: ClassVar[bool] = False

    name: Literal["permuted"] = "permuted"
    tell_decoder: bool = True  # as above
    scored_views: Literal[1, 2] = 2
    orders: int = 1  # the likelihood of the trained model is the mean over so many, the raster order first

    def __post_init__(self) -> None:
        positive(self, "orders")


# the first is what a section without a name means
GenerativeConfig = AutoregressiveConfig | PermutedConfig
