"""relative position, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Words


@dataclass(frozen=True)
class RelativePositionConfig(ContrastiveSettings):
    """In which of eight directions does one tile of an image lie from another?"""

    kind = "predictive"
    views = 2
    projects = False
    alone = "shows the encoder tiles, never the whole view that a generative term needs"
    words = Words(
        label="relative position",
        learns="telling how two parts of an image lie to each other",
        what="two tiles of an image, enlarged; in which of eight directions does the second lie from the first?",
        when="a baseline, for images that are much larger than a patch",
        cost="two views, as NT-Xent. Refused beside a generative term: the encoder sees tiles alone",
        papers={"Doersch et al. 2015": "https://arxiv.org/abs/1505.05192"},
    )

    name: Literal["relative_position"] = "relative_position"

    @staticmethod
    def term() -> type:
        from components.objectives.predictive.relative_position.term import RelativePosition

        return RelativePosition
