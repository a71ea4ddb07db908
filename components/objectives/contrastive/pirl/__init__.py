"""PIRL, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Task, Words, positive, share


@dataclass(frozen=True)
class PIRLConfig(ContrastiveSettings):
    """PIRL: an image and its jigsaw find the image in a memory bank."""

    views = 2
    unaltered = 1
    words = Words(
        label="PIRL",
        learns="telling images apart, however their parts are shuffled",
        what="a view of an image, and another one cut into `grid`² tiles and shuffled, must both find the image in a "
        "bank of what is remembered of all images",
        when="features that shall not depend on the arrangement of an image's parts; objects more than digits",
        cost="two views, as NT-Xent; the bank of `instdisc`, and `negatives` for a large set",
        papers={"Misra & van der Maaten 2020": "https://arxiv.org/abs/1912.01991"},
    )

    name: Literal["pirl"] = "pirl"
    grid: int = 2  # tiles a side of the jigsaw; must divide the number of patches a side
    jigsaw_weight: float = 0.5  # of the jigsaw's loss; the image's has the rest
    negatives: int | None = None  # images of the memory a step; null: all
    momentum: float = 0.5  # of an image's vector in the bank
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.grid < 2:
            raise ValueError("grid must be at least 2: one tile cannot be shuffled")
        if not 0 <= self.jigsaw_weight <= 1:
            raise ValueError("jigsaw_weight must lie between 0 and 1")
        if self.negatives is not None:
            positive(self, "negatives")
        positive(self, "temperature")
        share(self, "momentum")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.pirl.term import PIRL

        return PIRL

    def check(self, task: Task) -> None:
        if task.side % self.grid:
            fitting = ", ".join(str(grid) for grid in range(2, task.side + 1) if task.side % grid == 0) or "none"
            raise ValueError(
                f"grid: tiles hold whole patches, but {self.grid} does not divide the {task.side} a side. "
                f"Set it to a number that does: {fitting}."
            )
