"""MoCo v3, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.settings import ContrastiveSettings, Words, positive, share


@dataclass(frozen=True)
class MoCoV3Config(ContrastiveSettings):
    """MoCo v3: no queue, but a predictor."""

    words = Words(
        label="MoCo v3",
        learns="telling images apart, however they are altered, as a slower copy of the encoder does",
        what="no queue; a predictor on the queries' side, keys of the same batch from the averaged encoder",
        when="large batches; the averaged targets make training steadier",
        cost="a forward pass more for each view; a second encoder and the predictor",
        papers={"Chen, Xie & He 2021": "https://arxiv.org/abs/2104.02057"},
    )
    zoo: ClassVar = {"moco-v3": {"momentum": 0.9}}

    name: Literal["moco_v3"] = "moco_v3"
    momentum: float = 0.99  # at first; it grows along a cosine to 1
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")
        share(self, "momentum")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.moco_v3.term import MoCoV3

        return MoCoV3
