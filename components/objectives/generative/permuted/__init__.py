"""XLNet, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.settings import ExactSettings, Words, positive


@dataclass(frozen=True)
class PermutedConfig(ExactSettings):
    """The exact likelihood in any order: training draws one for each view."""

    words = Words(
        label="XLNet",
        learns="predicting images piece by piece, in any order",
        what="the exact likelihood in a random order of the patches, another one for each view and step; the decoder "
        "is told which patch comes next",
        when="parts of an image are to be filled in wherever they are missing (`completions.png` shows the middle); "
        "`orders: 4` answers with the mean likelihood over four fixed orders, which is an exact one, too "
        "([MADE](https://arxiv.org/abs/1502.03509)'s ensembles)",
        cost="alone none; beside a contrastive term a second pass of the encoder, because features come from the "
        "raster order. `orders: k` takes k passes of an image in evaluation and in the exported model, none in "
        "training",
        papers={"Yang et al. 2019": "https://arxiv.org/abs/1906.08237"},
    )
    zoo: ClassVar = {"permuted": {"orders": 4}}

    name: Literal["permuted"] = "permuted"
    condition_on_augmentation: bool = True  # the decoder, never the encoder, is told a view's parameters
    scored_views: Literal[1, 2] = 2
    orders: int = 1  # the likelihood of the trained model is the mean over so many, the raster order first

    def __post_init__(self) -> None:
        positive(self, "orders")

    @staticmethod
    def term() -> type:
        from components.objectives.generative.permuted.term import Permuted

        return Permuted
