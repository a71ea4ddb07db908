"""InstDisc, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Words, positive, share


@dataclass(frozen=True)
class InstDiscConfig(ContrastiveSettings):
    """InstDisc: every image is a class of its own, remembered in a bank."""

    words = Words(
        label="InstDisc",
        learns="telling each image from all others",
        what="every image is a class; a view must find its image among all images, by what a bank remembers of them "
        "from the epoch before",
        when="a baseline: views of an image never meet, only the bank's memory of them",
        cost="a vector an image in memory and in the resume file (0.5 GB a million images of 128 numbers), and a "
        "product of each view with all of them; for a large set `negatives: 4096` estimates it from as many (NCE), "
        "which needs projections that are spread out from the start",
        papers={"Wu et al. 2018": "https://arxiv.org/abs/1805.01978"},
    )

    name: Literal["instdisc"] = "instdisc"
    negatives: int | None = None  # noise images a step; null: all images, exactly
    momentum: float = 0.5  # of an image's vector in the bank
    temperature: float = 0.07

    def __post_init__(self) -> None:
        positive(self, "temperature")
        if self.negatives is not None:
            positive(self, "negatives")
        share(self, "momentum")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.instdisc.term import InstDisc

        return InstDisc
