"""SimCLR, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.settings import ContrastiveSettings, Words, positive


@dataclass(frozen=True)
class NTXentConfig(ContrastiveSettings):
    """SimCLR: every other view of the batch is a negative."""

    words = Words(
        label="SimCLR",
        learns="telling images apart, however they are altered",
        what="a view must find the other view of its image among all views of the batch",
        when="the default: no state, nothing to tune but `temperature`; wants large batches",
        cost="–",
        papers={"Chen et al. 2020": "https://arxiv.org/abs/2002.05709"},
    )
    zoo: ClassVar = {"simclr": {}}

    name: Literal["nt_xent"] = "nt_xent"
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.nt_xent.term import NTXent

        return NTXent
