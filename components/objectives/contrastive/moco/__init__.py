"""MoCo v2, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.settings import ContrastiveSettings, Task, Words, positive, share


@dataclass(frozen=True)
class MoCoConfig(ContrastiveSettings):
    """MoCo v2: negatives are the keys of earlier batches."""

    words = Words(
        label="MoCo v2",
        learns="telling images apart, however they are altered, and from those of earlier batches",
        what="a view must find the other view of its image among the last `queue_size` keys of earlier batches, "
        "computed by a moving average of the encoder",
        when="where memory allows small batches only: the number of negatives does not depend on the batch",
        cost="a forward pass more for each view; a second encoder and the queue in memory",
        papers={
            "He et al. 2020": "https://arxiv.org/abs/1911.05722",
            "Chen et al. 2020": "https://arxiv.org/abs/2003.04297",
        },
    )
    zoo: ClassVar = {"moco": {"queue_size": 512, "momentum": 0.9}}

    name: Literal["moco"] = "moco"
    queue_size: int = 4096  # keys: a few batches' views; refused where there are fewer images
    momentum: float = 0.99  # of the encoder that computes the keys
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "queue_size", "temperature")
        share(self, "momentum")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.moco.term import MoCo

        return MoCo

    def check(self, task: Task) -> None:
        if task.images is not None and self.queue_size > task.images:
            raise ValueError(
                f"queue_size: {self.queue_size} keys, but there are only {task.images} images to pretrain on: many "
                "images would have their own older keys among their negatives. Lower it to a few batches' views."
            )
