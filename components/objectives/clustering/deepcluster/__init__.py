"""DeepCluster, declared; its code is in term.py."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.settings import ContrastiveSettings, Task, Words, fewer_than_images, positive


@dataclass(frozen=True)
class DeepClusterConfig(ContrastiveSettings):
    """DeepCluster: predict the cluster that an image's features fell into."""

    kind = "clustering"
    projects = False
    words = Words(
        label="DeepCluster",
        learns="telling groups of similar images apart, which it forms itself",
        what="every `recluster_epochs` epochs k-means on the features of all images gives each a cluster; a fresh "
        "linear classifier and the encoder learn the clusters as if they were classes, each of the same weight",
        when="large sets and long runs: clusters teach what the features can tell already, so they get better slowly. "
        "`clusters`: several times the number of classes",
        cost="a pass of all images without a gradient, and k-means on one core, at every clustering; on up to 256 "
        "images a cluster, whose features are held in memory",
        papers={"Caron et al. 2018": "https://arxiv.org/abs/1807.05520"},
    )
    zoo: ClassVar = {"deepcluster": {"clusters": 100, "recluster_epochs": 5}}

    name: Literal["deepcluster"] = "deepcluster"
    clusters: int = 50  # several times as many as there are classes
    recluster_epochs: int = 1  # between two clusterings
    pca_components: int = 64  # that are clustered, at most

    def __post_init__(self) -> None:
        positive(self, "clusters", "recluster_epochs", "pca_components")

    @staticmethod
    def term() -> type:
        from components.objectives.clustering.deepcluster.term import DeepCluster

        return DeepCluster

    def check(self, task: Task) -> None:
        fewer_than_images(self.clusters, task.images)
