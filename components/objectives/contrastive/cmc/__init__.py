"""CMC, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Task, Words, positive


@dataclass(frozen=True)
class CMCConfig(ContrastiveSettings):
    """CMC: an image, its lightness and its colours find each other."""

    views = 3
    unaltered = 1
    words = Words(
        label="CMC",
        learns="telling images apart by their lightness or their colours alone",
        what="an image, its lightness alone and its colours alone (L\\* and a\\*b\\*) must find each other, by "
        "NT-Xent's cousin that compares two views at a time",
        when="colour images whose colours say something of their own; set `augmentation.greyscale_probability: 0`, a "
        "grey view has no colours. Refused for grey images; `make zoo` has it for those in colour. A first look: 100 "
        "steps on 9,000 CIFAR-10 images at 16×16 (`cifar10-cpu` with `greyscale_probability: 0`, seed 0) give a "
        "linear probe of 46.0 %, k-NN 41.3 %, effective rank 45 of 128; an untrained encoder 31.6 % and 27.3 %",
        cost="three views: one and a half times the encoder",
        papers={"Tian et al. 2020": "https://arxiv.org/abs/1906.05849"},
    )

    name: Literal["cmc"] = "cmc"
    temperature: float = 0.07

    def __post_init__(self) -> None:
        positive(self, "temperature")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.cmc.term import CMC

        return CMC

    def check(self, task: Task) -> None:
        if task.channels == 1:
            raise ValueError(
                "name: cmc tells lightness from colours, and data.channels is 1. Choose another term, or set "
                "data.channels to 3 for images in colour."
            )
