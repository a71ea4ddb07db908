"""CPC, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import MORE_THAN_FEATURES, ContrastiveSettings, Task, Words, positive


@dataclass(frozen=True)
class CPCConfig(ContrastiveSettings):
    """CPC: what was seen of an image predicts the embeddings of the patches ahead."""

    projects = False
    alone = MORE_THAN_FEATURES
    words = Words(
        label="CPC",
        learns="telling which part of an image comes next",
        what="what was seen up to a patch must tell the embedding of the patch 1 … `prediction_steps` ahead from those "
        "of `negatives` other patches of the batch",
        when="the contrastive cousin of the likelihood: predicts what comes, but need not say what it looks like. "
        "Nothing compares two views",
        cost="a product of all positions with the negatives for each step; all positions of all views of a batch in "
        "memory",
        papers={"van den Oord et al. 2018": "https://arxiv.org/abs/1807.03748"},
    )

    name: Literal["cpc"] = "cpc"
    prediction_steps: int = 4  # patches ahead, in raster order
    negatives: int = 512  # patches of the batch a step

    def __post_init__(self) -> None:
        positive(self, "prediction_steps", "negatives")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.cpc.term import CPC

        return CPC

    def check(self, task: Task) -> None:
        if self.prediction_steps >= task.patches:
            raise ValueError(
                f"prediction_steps: {self.prediction_steps}, but an image has {task.patches} patches: the last lies "
                f"{task.patches - 1} ahead of the first. Lower it, or lower model.patch_size."
            )
