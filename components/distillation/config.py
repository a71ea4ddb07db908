"""A student: an encoder that learns from a variant's. No tensor library is imported here."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from components.model.config import ModelConfig
from components.training.config import TrainingConfig


@dataclass(frozen=True)
class CrdConfig:
    """Contrastive representation distillation (Tian, Krishnan and Isola 2020, arXiv 1910.10699)."""

    weight: float = 0.8
    negatives: int = 16384  # N of each anchor; where the set is smaller, as many as it has other images
    temperature: float = 0.07
    embedding_size: int = 128  # of the embeddings that are compared
    momentum: float = 0.5  # of the memory buffers

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        if self.temperature <= 0:
            raise ValueError("temperature must be positive")
        if self.negatives < 1 or self.embedding_size < 1:
            raise ValueError("negatives and embedding_size must be at least 1")
        if not 0 <= self.momentum < 1:
            raise ValueError("momentum must lie in [0, 1)")


@dataclass(frozen=True)
class KdConfig:
    """Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531) from the teacher's linear probe."""

    weight: float = 1.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        if self.temperature <= 0:
            raise ValueError("temperature must be positive")


@dataclass(frozen=True)
class RegressionConfig:
    """Regression on the teacher's features (Romero et al. 2015, FitNets, arXiv 1412.6550)."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_weight(self.weight)


@dataclass(frozen=True)
class ClusterFitConfig:
    """ClusterFit (Yan et al. 2020, arXiv 1912.03330): classify images into clusters of the teacher's features."""

    weight: float = 1.0
    clusters: int = 50  # several times as many as there are classes

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        if self.clusters < 2:
            raise ValueError("clusters must be at least 2")


@dataclass(frozen=True)
class StudentModel:
    """The student's shape; what is not given is as in `model`."""

    patch_size: int | None = None
    width: int | None = None
    heads: int | None = None
    encoder_layers: int | None = None
    local_width: int | None = None


@dataclass(frozen=True)
class StudentTraining:
    """The student's training; what is not given is as in `training`."""

    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    warmup_steps: int | None = None


@dataclass(frozen=True)
class StudentConfig:
    """An encoder that learns from the variant `teacher`, by the weighted sum of one or more of four losses."""

    kind: ClassVar[str] = "student"  # where a variant says what it learns by

    teacher: str
    model: StudentModel = field(default_factory=StudentModel)
    training: StudentTraining = field(default_factory=StudentTraining)
    crd: CrdConfig | None = None
    kd: KdConfig | None = None
    regression: RegressionConfig | None = None
    clusterfit: ClusterFitConfig | None = None

    def __post_init__(self) -> None:
        if not self.terms:
            known = "crd, kd, regression and clusterfit"
            raise ValueError(f"a student learns by one or more of {known} (`crd: {{}}` has the defaults)")

    @property
    def terms(self) -> dict[str, CrdConfig | KdConfig | RegressionConfig | ClusterFitConfig]:
        """The losses that it learns by, under their names."""
        every = {"crd": self.crd, "kd": self.kd, "regression": self.regression, "clusterfit": self.clusterfit}
        return {name: term for name, term in every.items() if term is not None}

    @property
    def objective(self) -> str:
        """Its loss in words."""
        return " + ".join(f"{term.weight:g} · {name}" for name, term in self.terms.items())

    def model_from(self, model: ModelConfig) -> ModelConfig:
        """Its shape, of which the rest is this one's. Raises ValueError where the two do not go together."""
        return replace(model, **_given(self.model))

    def training_from(self, training: TrainingConfig) -> TrainingConfig:
        """How it is trained, of which the rest is this one's. Raises ValueError where the two do not go together."""
        return replace(training, **_given(self.training))


def _given(partial: StudentModel | StudentTraining) -> dict[str, Any]:
    return {name: value for name, value in asdict(partial).items() if value is not None}


def _check_weight(weight: float) -> None:
    if weight <= 0:
        raise ValueError("weight must be positive; leave the term out instead")
