"""DEMI, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Words, between_0_and_1, positive


@dataclass(frozen=True)
class DEMIConfig(ContrastiveSettings):
    """DEMI: what a part of a view tells of another view, and what the rest adds to that."""

    views = 3
    unaltered = 2
    words = Words(
        label="DEMI",
        learns="telling images apart by a part, and by what the rest adds",
        what="a crop of a view must find the other view; the whole view must find it among those that the crop holds "
        "likely (the others weigh little)",
        when="views that share much: InfoNCE cannot see more than the logarithm of the batch at once, two steps see "
        "two such shares",
        cost="three views: one and a half times the encoder; a head more",
        papers={"Sordoni et al. 2021": "https://arxiv.org/abs/2106.13401"},
    )

    name: Literal["demi"] = "demi"
    crop_ratio: float = 0.5  # of the part's side to the view's
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")
        between_0_and_1(self, "crop_ratio")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.demi.term import DEMI

        return DEMI
