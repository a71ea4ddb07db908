"""BERT, MAE, SimMIM, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import GenerativeSettings, Task, Words, between_0_and_1


@dataclass(frozen=True)
class MaskedConfig(GenerativeSettings):
    """Masked patches, from all that is not masked."""

    words = Words(
        label="BERT, MAE, SimMIM",
        learns="filling in hidden parts of images",
        what="an embedding in the place of a share (`mask_ratio`) of the patches, which a decoder predicts from all "
        "others; the encoder sees everything around a patch, not only what came before",
        when="features alone are wanted, no likelihood; best with a contrastive term beside it",
        cost="alone none; beside a contrastive term a second pass of the encoder",
        papers={
            "Devlin et al. 2019": "https://arxiv.org/abs/1810.04805",
            "He et al. 2022": "https://arxiv.org/abs/2111.06377",
            "Xie et al. 2022": "https://arxiv.org/abs/2111.09886",
        },
    )

    name: Literal["masked"] = "masked"
    scored_views: Literal[1, 2] = 2
    mask_ratio: float = 0.5  # of a view's patches that are masked

    def __post_init__(self) -> None:
        between_0_and_1(self, "mask_ratio")

    def masked(self, patches: int) -> int:
        """How many of a view's patches are masked: the nearest number to the ratio, at least one."""
        return max(1, round(self.mask_ratio * patches))

    @staticmethod
    def term() -> type:
        from components.objectives.generative.masked.term import Masked

        return Masked

    def check(self, task: Task) -> None:
        if self.masked(task.patches) >= task.patches:
            raise ValueError(
                f"mask_ratio: {self.mask_ratio} of {task.patches} patches are all of them, and nothing is left to "
                "predict them from. Lower it, or model.patch_size."
            )
