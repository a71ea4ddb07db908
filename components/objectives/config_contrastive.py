"""The contrastive terms' settings. No tensor library is imported here.

Each is a frozen dataclass whose `name` has one value; it is listed in the union at the end.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.config_checks import between_0_and_1, positive, share

MORE_THAN_FEATURES = "needs the encoder's positions, which are not available beside a generative term"


class ContrastiveSettings:
    """What a term says of itself besides its keys."""

    kind: ClassVar[str] = "contrastive"  # what a variant of this term alone learns by
    views: int | None = None  # of an image, in place of training.views
    unaltered: ClassVar[int | None] = None  # so many of them, the first, stay as they are drawn; None: all
    projects: ClassVar[bool] = True  # whether it reads projections
    alone: ClassVar[str | None] = None  # why no generative term can be trained beside it


@dataclass(frozen=True)
class NTXentConfig(ContrastiveSettings):
    """SimCLR: every other view of the batch is a negative."""

    name: Literal["nt_xent"] = "nt_xent"
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")


@dataclass(frozen=True)
class MoCoConfig(ContrastiveSettings):
    """MoCo v2: negatives are the keys of earlier batches."""

    name: Literal["moco"] = "moco"
    queue_size: int = 4096  # keys: a few batches' views; refused where there are fewer images
    momentum: float = 0.99  # of the encoder that computes the keys
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "queue_size", "temperature")
        share(self, "momentum")


@dataclass(frozen=True)
class MoCoV3Config(ContrastiveSettings):
    """MoCo v3: no queue, but a predictor."""

    name: Literal["moco_v3"] = "moco_v3"
    momentum: float = 0.99  # at first; it grows along a cosine to 1
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")
        share(self, "momentum")


@dataclass(frozen=True)
class SupConConfig(ContrastiveSettings):
    """SupCon: images of a class are positives; needs labels."""

    name: Literal["supcon"] = "supcon"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        positive(self, "temperature")


@dataclass(frozen=True)
class CACRConfig(ContrastiveSettings):
    """CACR: farther positives and nearer negatives weigh more."""

    name: Literal["cacr"] = "cacr"
    views: int = 4  # of an image, in place of training.views
    alpha: float = 1.0  # weight of the attraction
    beta: float = 1.0  # weight of the repulsion
    tau_positive: float = 1.0  # how much more a positive weighs the farther it is
    tau_negative: float = 0.9  # how much more a negative weighs the nearer it is

    def __post_init__(self) -> None:
        if self.views < 2:
            raise ValueError("views must be at least 2: a view needs another of its image to agree with")
        positive(self, "alpha", "beta")
        if self.tau_positive < 0 or self.tau_negative < 0:
            raise ValueError("tau_positive and tau_negative must not be negative")


@dataclass(frozen=True)
class InstDiscConfig(ContrastiveSettings):
    """InstDisc: every image is a class of its own, remembered in a bank."""

    name: Literal["instdisc"] = "instdisc"
    negatives: int | None = None  # noise images a step; null: all images, exactly
    momentum: float = 0.5  # of an image's vector in the bank
    temperature: float = 0.07

    def __post_init__(self) -> None:
        positive(self, "temperature")
        if self.negatives is not None:
            positive(self, "negatives")
        share(self, "momentum")


@dataclass(frozen=True)
class LoCoConfig(ContrastiveSettings):
    """LoCo: a loss of its own for every few blocks of the encoder, and no gradient between them."""

    alone = "lets no gradient through the whole encoder, which a generative term needs"

    name: Literal["loco"] = "loco"
    overlap: int = 1  # blocks that neighbouring units share
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")
        if self.overlap < 0:
            raise ValueError("overlap must not be negative")


@dataclass(frozen=True)
class DeepClusterConfig(ContrastiveSettings):
    """DeepCluster: predict the cluster that an image's features fell into."""

    kind = "clustering"
    projects = False

    name: Literal["deepcluster"] = "deepcluster"
    clusters: int = 50  # several times as many as there are classes
    recluster_epochs: int = 1  # between two clusterings
    pca_components: int = 64  # that are clustered, at most

    def __post_init__(self) -> None:
        positive(self, "clusters", "recluster_epochs", "pca_components")


@dataclass(frozen=True)
class LocalAggregationConfig(ContrastiveSettings):
    """Local aggregation: draw images to their close neighbours, among all that are near."""

    kind = "clustering"

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


@dataclass(frozen=True)
class RotationConfig(ContrastiveSettings):
    """RotNet: by which of four angles was the image turned."""

    kind = "predictive"
    views = 4
    unaltered = 1
    projects = False

    name: Literal["rotation"] = "rotation"


@dataclass(frozen=True)
class PIRLConfig(ContrastiveSettings):
    """PIRL: an image and its jigsaw find the image in a memory bank."""

    views = 2
    unaltered = 1

    name: Literal["pirl"] = "pirl"
    grid: int = 2  # tiles a side of the jigsaw; must divide the number of patches a side
    jigsaw_weight: float = 0.5  # of the jigsaw's loss; the image's has the rest
    negatives: int | None = None  # images of the memory a step; null: all
    momentum: float = 0.5  # of an image's vector in the bank
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.grid < 2:
            raise ValueError("grid must be at least 2: one tile cannot be shuffled")
        if not 0 <= self.jigsaw_weight <= 1:
            raise ValueError("jigsaw_weight must lie between 0 and 1")
        if self.negatives is not None:
            positive(self, "negatives")
        positive(self, "temperature")
        share(self, "momentum")


@dataclass(frozen=True)
class CPCConfig(ContrastiveSettings):
    """CPC: what was seen of an image predicts the embeddings of the patches ahead."""

    projects = False
    alone = MORE_THAN_FEATURES

    name: Literal["cpc"] = "cpc"
    prediction_steps: int = 4  # patches ahead, in raster order
    negatives: int = 512  # patches of the batch a step

    def __post_init__(self) -> None:
        positive(self, "prediction_steps", "negatives")


@dataclass(frozen=True)
class DIMConfig(ContrastiveSettings):
    """AMDIM: a view's features know each part of the image's other views; of its own, that is Deep InfoMax."""

    alone = MORE_THAN_FEATURES

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


@dataclass(frozen=True)
class DEMIConfig(ContrastiveSettings):
    """DEMI: what a part of a view tells of another view, and what the rest adds to that."""

    views = 3
    unaltered = 2

    name: Literal["demi"] = "demi"
    crop_ratio: float = 0.5  # of the part's side to the view's
    temperature: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "temperature")
        between_0_and_1(self, "crop_ratio")


@dataclass(frozen=True)
class CMCConfig(ContrastiveSettings):
    """CMC: an image, its lightness and its colours find each other."""

    views = 3
    unaltered = 1

    name: Literal["cmc"] = "cmc"
    temperature: float = 0.07

    def __post_init__(self) -> None:
        positive(self, "temperature")


@dataclass(frozen=True)
class RelativePositionConfig(ContrastiveSettings):
    """In which of eight directions does one tile of an image lie from another?"""

    kind = "predictive"
    views = 2
    projects = False
    alone = "shows the encoder tiles, never the whole view that a generative term needs"

    name: Literal["relative_position"] = "relative_position"


# the first is what a section without a name means
ContrastiveConfig = (
    NTXentConfig
    | MoCoConfig
    | MoCoV3Config
    | SupConConfig
    | CACRConfig
    | InstDiscConfig
    | LoCoConfig
    | DeepClusterConfig
    | LocalAggregationConfig
    | RotationConfig
    | PIRLConfig
    | CPCConfig
    | DIMConfig
    | DEMIConfig
    | CMCConfig
    | RelativePositionConfig
)
