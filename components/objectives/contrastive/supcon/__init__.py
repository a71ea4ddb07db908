"""SupCon, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Task, Words, positive


@dataclass(frozen=True)
class SupConConfig(ContrastiveSettings):
    """SupCon: images of a class are positives; needs labels."""

    words = Words(
        label="SupCon",
        learns="telling the images of a class from those of others, by their labels",
        what="all views of all images of a class are each other's positives",
        when="labels are there for most of the images that are pretrained on (in `data.pretrain`: sub-folders of the "
        "same names as in `data.labelled`); the features serve these classes. An image without a label is a class of "
        "its own",
        cost="nothing more; refused where no image has a label",
        papers={"Khosla et al. 2020": "https://arxiv.org/abs/2004.11362"},
    )

    name: Literal["supcon"] = "supcon"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        positive(self, "temperature")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.supcon.term import SupCon

        return SupCon

    def check(self, task: Task) -> None:
        if task.labels is False:
            raise ValueError(
                "name: supcon learns from labels, but no image that is pretrained on has one. Give data.pretrain one "
                "sub-folder a class, named as in data.labelled (or leave it out: data.labelled is pretrained on then), "
                "or choose a term that needs no labels, such as nt_xent."
            )
