"""local aggregation, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Task, Words, fewer_than_images, positive, share


@dataclass(frozen=True)
class LocalAggregationConfig(ContrastiveSettings):
    """Local aggregation: draw images to their close neighbours, among all that are near."""

    kind = "clustering"
    words = Words(
        label="local aggregation",
        learns="drawing images to their nearest neighbours, which it finds itself",
        what="InstDisc's bank, but a view is drawn to all close neighbours of its image (they share a cluster with it "
        "in one of `clusterings` k-means of the bank) among the `background_neighbours` nearest images; for "
        "`instance_epochs` every image is its own only one",
        when="as InstDisc, where images of a class should come together without labels",
        cost="the bank of `instdisc` and a product of each view with all of it at every step, which no `negatives` can "
        "estimate: not for large sets. A few k-means of the bank every `recluster_epochs` epochs",
        papers={"Zhuang et al. 2019": "https://arxiv.org/abs/1903.12355"},
    )

    name: Literal["local_aggregation"] = "local_aggregation"
    clusters: int = 50  # of each clustering
    clusterings: int = 3  # close is what shares a cluster in one of them
    background_neighbours: int = 512  # images that count as near
    recluster_epochs: int = 1  # between two clusterings
    instance_epochs: int = 10  # at first, with every image its own only close neighbour
    momentum: float = 0.5  # of an image's vector in the bank
    temperature: float = 0.07

    def __post_init__(self) -> None:
        positive(self, "clusters", "clusterings", "background_neighbours", "recluster_epochs", "temperature")
        if self.instance_epochs < 0:
            raise ValueError("instance_epochs must not be negative")
        share(self, "momentum")

    @staticmethod
    def term() -> type:
        from components.objectives.clustering.local_aggregation.term import LocalAggregation

        return LocalAggregation

    def check(self, task: Task) -> None:
        fewer_than_images(self.clusters, task.images)
