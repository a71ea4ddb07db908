"""RotNet, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Task, Words


@dataclass(frozen=True)
class RotationConfig(ContrastiveSettings):
    """RotNet: by which of four angles was the image turned."""

    kind = "predictive"
    views = 4
    unaltered = 1
    projects = False
    words = Words(
        label="RotNet",
        learns="telling how an image was turned",
        what="each image in four rotations; a linear classifier tells by how many quarters it was turned",
        when="a baseline that contrasts nothing, so that small batches do; photographs of things that have an upright "
        "pose. Of digits a 0 and an 8 look the same upside down, a 6 is a 9: part of the task has no answer",
        cost="four views of an image: twice the encoder. Refused where `augmentation.rotate_degrees` is 45 or more",
        papers={"Gidaris et al. 2018": "https://arxiv.org/abs/1803.07728"},
    )

    name: Literal["rotation"] = "rotation"

    @staticmethod
    def term() -> type:
        from components.objectives.predictive.rotation.term import Rotation

        return Rotation

    def check(self, task: Task) -> None:
        if task.rotate_degrees >= 45:
            raise ValueError(
                "name: rotation tells quarter turns apart, which cannot be where views are turned at random by "
                f"{task.rotate_degrees:g}°. Set augmentation.rotate_degrees below 45."
            )
