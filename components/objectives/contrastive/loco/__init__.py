"""LoCo, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Task, Words, positive


@dataclass(frozen=True)
class LoCoConfig(ContrastiveSettings):
    """LoCo: a loss of its own for every few blocks of the encoder, and no gradient between them."""

    alone = "lets no gradient through the whole encoder, which a generative term needs"
    words = Words(
        label="LoCo",
        learns="telling images apart, however they are altered, block by block",
        what="NT-Xent at the end of every `overlap` + 1 neighbouring blocks, with a head of its own; no gradient goes "
        "further down than these blocks. `overlap: 0` is Greedy InfoMax with this loss",
        when="to study local learning, or deep encoders that memory does not hold; on digits it is behind NT-Xent, and "
        "the less so the more blocks overlap",
        cost="2 to 2.5 times the step (1.4 without overlap), less memory the deeper the encoder. Refused beside a "
        "generative term (`w_gen` above 0), whose gradient goes through the whole encoder",
        papers={"Xiong et al. 2020": "https://arxiv.org/abs/2008.01342"},
    )

    name: Literal["loco"] = "loco"
    overlap: int = 1  # blocks that neighbouring units share
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")
        if self.overlap < 0:
            raise ValueError("overlap must not be negative")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.loco.term import LoCo

        return LoCo

    def check(self, task: Task) -> None:
        if self.overlap >= task.encoder_layers:
            raise ValueError(
                f"overlap: {self.overlap}, but the encoder has {task.encoder_layers} blocks: units can share "
                f"{task.encoder_layers - 1} at most. Lower it, or raise model.encoder_layers."
            )
