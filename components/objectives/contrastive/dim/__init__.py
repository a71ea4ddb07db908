"""AMDIM, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.settings import MORE_THAN_FEATURES, ContrastiveSettings, Task, Words, positive


@dataclass(frozen=True)
class DIMConfig(ContrastiveSettings):
    """AMDIM: a view's features know each part of the image's other views; of its own, that is Deep InfoMax."""

    alone = MORE_THAN_FEATURES
    words = Words(
        label="AMDIM",
        learns="telling to which image a part belongs",
        what="a view's projection must tell the parts of an image's other views, at the exits of `blocks`, from those "
        "of all other images. `across_views: false, blocks: [0]` is Deep InfoMax ([Hjelm et al. "
        "2019](https://arxiv.org/abs/1808.06670)): the parts of the same view, each a patch in its place (0: before "
        "the first block; behind one, parts have seen more of the view, which is refused)",
        when="where an image's parts say what it is. Deep InfoMax as a baseline: it learns more slowly than AMDIM (on "
        "digits a linear probe of 83.3 % after 400 steps against 95.1 %)",
        cost="a product of each projection with all parts of the batch, for each block; all parts in memory",
        papers={"Bachman et al. 2019": "https://arxiv.org/abs/1906.00910"},
    )
    zoo: ClassVar = {"dim": {"across_views": False, "blocks": [0]}, "amdim": {"blocks": [1, 2]}}

    name: Literal["dim"] = "dim"
    across_views: bool = True  # features know the parts of the other views, not of their own
    blocks: tuple[int, ...] = (1,)  # of the encoder, at whose exits parts are read; 0: before the first, patches alone
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")
        if not self.blocks or self.blocks[0] < 0 or list(self.blocks) != sorted(set(self.blocks)):
            raise ValueError("blocks must list numbers from 0 in ascending order")
        if not self.across_views and self.blocks != (0,):
            raise ValueError(
                "across_views is false: behind a block all parts of a view have seen its first patches, and to know "
                "those is enough to find them. Set blocks to [0]"
            )

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.dim.term import DIM

        return DIM

    def check(self, task: Task) -> None:
        if self.blocks[-1] > task.encoder_layers:
            raise ValueError(
                f"blocks: {self.blocks[-1]}, but the encoder has {task.encoder_layers} blocks. "
                f"Name some of 0 to {task.encoder_layers}."
            )
