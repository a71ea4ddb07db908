"""CACR, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Words, positive


@dataclass(frozen=True)
class CACRConfig(ContrastiveSettings):
    """CACR: farther positives and nearer negatives weigh more."""

    words = Words(
        label="CACR",
        learns="telling images apart, however they are altered, the hardest above all",
        what="squared distances instead of a softmax over all; the farther a positive and the nearer a negative, the "
        "more it weighs",
        when="many views, small batches, uneven data",
        cost="`views: 4` of an image instead of two: twice the encoder",
        papers={"Zheng et al. 2021": "https://arxiv.org/abs/2105.03746"},
    )

    name: Literal["cacr"] = "cacr"
    views: int = 4  # of an image, in place of training.views
    alpha: float = 1.0  # weight of the attraction
    beta: float = 1.0  # weight of the repulsion
    tau_positive: float = 1.0  # how much more a positive weighs the farther it is
    tau_negative: float = 0.9  # how much more a negative weighs the nearer it is

    def __post_init__(self) -> None:
        if self.views < 2:
            raise ValueError("views must be at least 2: a view needs another of its image to agree with")
        positive(self, "alpha", "beta")
        if self.tau_positive < 0 or self.tau_negative < 0:
            raise ValueError("tau_positive and tau_negative must not be negative")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.cacr.term import CACR

        return CACR
