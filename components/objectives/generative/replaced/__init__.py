"""ELECTRA, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.generative.masked import MaskedConfig
from components.objectives.settings import GenerativeSettings, Task, Words, between_0_and_1, positive


@dataclass(frozen=True)
class ReplacedConfig(GenerativeSettings):
    """ELECTRA: which patches has a small masked model replaced?"""

    words = Words(
        label="ELECTRA",
        learns="finding the parts of images that a small model has replaced",
        what="a small masked model (a quarter of the width) draws a share (`mask_ratio`) of the patches anew, the "
        "encoder tells of every patch whether it is the original; loss: the small model's plus `discriminator_weight` "
        "(50) times the cross-entropy",
        when="as `masked`; every patch teaches, not only those masked. Beside a contrastive term take a small `w_gen` "
        "(0.02), because of the 50",
        cost="a pass of the small model; its drawing takes one step a token of a patch, which is felt with large "
        "patches of 8-bit RGB pixels",
        papers={"Clark et al. 2020": "https://arxiv.org/abs/2003.10555"},
    )

    name: Literal["replaced"] = "replaced"
    scored_views: Literal[1, 2] = 2
    mask_ratio: float = 0.5  # of a view's patches that are masked, then drawn anew
    discriminator_weight: float = 50.0  # of telling which they are, beside the small model's own loss: λ

    def __post_init__(self) -> None:
        between_0_and_1(self, "mask_ratio")
        positive(self, "discriminator_weight")

    @staticmethod
    def term() -> type:
        from components.objectives.generative.replaced.term import Replaced

        return Replaced

    def check(self, task: Task) -> None:
        MaskedConfig(mask_ratio=self.mask_ratio).check(task)
