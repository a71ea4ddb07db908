"""params.yaml, read once and validated strictly: the only configuration of a run.

Only reading YAML needs a package (ruamel.yaml), which is imported there: elsewhere the stages run without it, on
parameters that were written as JSON.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.data.config import AugmentationConfig, DataConfig
from components.dataclass_reader import read_dataclass
from components.distillation.config import StudentConfig
from components.errors import ConfigError, nearest
from components.evaluation.config import SMALLEST_CORRUPTED, CertificateConfig, EmbedConfig, OodConfig, ProbeConfig
from components.export.config import ExportConfig
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig
from components.objectives.settings import Task
from components.training.config import TrainingConfig
from pipelines.metrics import METRICS, compared
from pipelines.paths import reserved

PARAMS = Path("params.yaml")
LONGEST_NAME = 64  # of what becomes a folder, a stage and a run, with words before and after
LONGEST_EXPERIMENT = 200


@dataclass(frozen=True)
class GateConfig:
    """When the best variant may become champion. Names are columns of the comparison table, all higher-is-better."""

    score: tuple[str, ...]  # variants are ranked by their mean; no default, because dvc.yaml refers to the key
    minimum: dict[str, float] | None = None  # the best variant must reach each of these

    def __post_init__(self) -> None:
        if not self.score:
            raise ValueError("score must name at least one column of the comparison table")


@dataclass(frozen=True)
class TrackingConfig:
    """Names under which MLflow shows the runs and the registered model."""

    experiment: str = "gcrl"
    registered_model: str = "gcrl"

    def __post_init__(self) -> None:
        name = self.experiment
        if not (0 < len(name) <= LONGEST_EXPERIMENT and name.isprintable() and name == name.strip()):
            raise ValueError(
                f"experiment '{_shortened(name)}': expected 1 to {LONGEST_EXPERIMENT} printable characters, no space "
                "at the beginning or the end"
            )
        if not unicodedata.is_normalized("NFC", name):
            raise ValueError(
                f"experiment '{_shortened(name)}': expected composed characters (Unicode's form NFC), for another "
                "experiment may look the same"
            )
        if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9])?", self.registered_model, re.ASCII) or (
            len(self.registered_model) > LONGEST_NAME
        ):
            raise ValueError(
                f"registered_model '{_shortened(self.registered_model)}': expected up to {LONGEST_NAME} letters (a to "
                "z, A to Z), digits, spaces, ., _ and -, with a letter or digit at both ends"
            )


@dataclass(frozen=True, kw_only=True)
class Params:
    """One complete params.yaml."""

    seed: int
    data: DataConfig
    model: ModelConfig
    augmentation: AugmentationConfig
    training: TrainingConfig
    variants: dict[str, VariantConfig]
    students: dict[str, StudentConfig]  # no default, because dvc.yaml refers to the key
    embed: EmbedConfig
    probe: ProbeConfig
    ood: OodConfig
    export: ExportConfig
    gate: GateConfig
    tracking: TrackingConfig
    certificate: dict[str, CertificateConfig] = field(default_factory=dict)  # by variant; no entry: no certificate

    @property
    def task(self) -> Task:
        """What a variant's terms are to be trained on, as far as it is known without the images."""
        return Task(
            side=self.data.image_size // self.model.patch_size,
            image_size=self.data.image_size,
            channels=self.data.channels,
            likelihood=self.model.likelihood,
            encoder_layers=self.model.encoder_layers,
            rotate_degrees=self.augmentation.rotate_degrees,
        )

    def variant(self, name: str) -> VariantConfig:
        """The variant of this name."""
        if name not in self.variants:
            known = ", ".join(self.variants)
            if name in self.students:
                raise ConfigError(f"{name!r} is a student, no variant. Variants of {PARAMS}: {known}.")
            raise ConfigError(f"unknown variant {name!r}{nearest(name, self.variants)}. {PARAMS} has: {known}.")
        return self.variants[name]

    def weights_of(self, variant: str) -> Path | None:
        """The file of weights that a variant takes or starts from."""
        encoder = self.variants[variant].encoder
        if encoder is None:
            return self.training.start_of(variant)
        return None if encoder.weights is None else Path(encoder.weights)

    def student(self, name: str) -> StudentConfig:
        """The student of this name."""
        if name not in self.students:
            known = f"has: {', '.join(self.students)}" if self.students else "has none"
            raise ConfigError(f"unknown student {name!r}{nearest(name, self.students)}. {PARAMS} {known}.")
        return self.students[name]

    @property
    def encoders(self) -> tuple[str, ...]:
        """The names of all that is trained, evaluated and exported: variants, then students."""
        return (*self.variants, *self.students)

    def encoder(self, name: str) -> VariantConfig | StudentConfig:
        """The variant or student of this name."""
        return self.students[name] if name in self.students else self.variant(name)

    def model_of(self, name: str) -> ModelConfig:
        """The shape of a variant or student."""
        return self.students[name].model_from(self.model) if name in self.students else self.model

    def training_of(self, name: str) -> TrainingConfig:
        """How a variant or student is trained."""
        return self.students[name].training_from(self.training) if name in self.students else self.training


def load_params(path: Path = PARAMS, name: str = "") -> Params:
    """Read and validate a params file, which messages call by its path or this name.

    Raises:
        ConfigError: the file is missing, no YAML, or holds an unknown key, a wrong type or an impossible combination.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise ConfigError(
            f"{path}: not found. Run from the project's root, or copy a preset there: cp presets/digits-cpu.yaml {path}"
        )
    try:
        raw = YAML(typ="safe").load(path)
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {type(raw).__name__}.")
    return validate_params(raw, name or path)


def validate_params(raw: Mapping[str, Any], path: Path | str) -> Params:
    """Validate what a params file holds; `path` names it in messages.

    Raises:
        ConfigError: it has an unknown key, a wrong type or an impossible combination.
    """
    params = read_dataclass(Params, raw, str(path))
    _check_combinations(path, params)
    return params


def _check_combinations(path: Path | str, params: Params) -> None:
    if not 0 <= params.seed < 2**32:  # what NumPy and scikit-learn take
        raise ConfigError(f"{path}: seed: input should lie between 0 and {2**32 - 1}, found {params.seed}.")
    if params.data.image_size % params.model.patch_size:
        raise ConfigError(
            f"{path}: model.patch_size: {params.model.patch_size} does not divide data.image_size "
            f"({params.data.image_size})."
        )
    if params.embed.corruptions and params.data.image_size < SMALLEST_CORRUPTED:
        raise ConfigError(
            f"{path}: embed.corruptions: images of {SMALLEST_CORRUPTED} × {SMALLEST_CORRUPTED} pixels or more can be "
            f"corrupted, data.image_size is {params.data.image_size}. Leave it empty."
        )
    if not params.variants:
        raise ConfigError(f"{path}: variants: expected at least one variant, found none.")
    for kind in ("variant", "student"):
        for name in getattr(params, f"{kind}s"):
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or len(name) > LONGEST_NAME or name in reserved():
                raise ConfigError(
                    f"{path}: {kind}s.{_shortened(name)}: a {kind}'s name is a folder's name: up to {LONGEST_NAME} "
                    "lower-case letters (a to z), digits, - and _, the first a letter or digit; taken are "
                    f"{', '.join(reserved())}."
                )
    for name, variant in params.variants.items():
        try:
            variant.check(params.task)
        except ValueError as error:
            raise ConfigError(f"{path}: variants.{name}.{error}") from error
    for name, student in params.students.items():
        _check_student(f"{path}: students.{name}", name, student, params)
    _check_certificates(path, params)
    if not params.data.ood:
        raise ConfigError(f"{path}: data.ood: expected at least one OOD set: the ood_score is reported on them.")
    known = [metric.name for metric in compared() if metric.higher_is_better]
    for key in ("score", "minimum"):
        for column in getattr(params.gate, key) or ():
            if column not in known:
                raise ConfigError(
                    f"{path}: gate.{key}: unknown column {column!r}{nearest(column, known)}. Known: {', '.join(known)}."
                )
            if needed := METRICS[column].lacks(params):
                raise ConfigError(f"{path}: gate.{key}: {column} is not measured without {needed}.")


def _check_student(key: str, name: str, student: StudentConfig, params: Params) -> None:
    if name in params.variants:
        raise ConfigError(f"{key}: there is a variant of this name; results would share a folder. Choose another.")
    if student.teacher not in params.variants:
        close = nearest(student.teacher, params.variants)
        known = ", ".join(params.variants)
        raise ConfigError(f"{key}.teacher: unknown variant {student.teacher!r}{close}. Known: {known}.")
    for section, resolve in (("model", params.model_of), ("training", params.training_of)):
        try:
            resolve(name)
        except ValueError as error:
            raise ConfigError(f"{key}.{section}: with what `{section}` says, {error}.") from error
    patch = params.model_of(name).patch_size
    if params.data.image_size % patch:
        raise ConfigError(
            f"{key}.model.patch_size: {patch} does not divide data.image_size ({params.data.image_size})."
        )


def _check_certificates(path: Path | str, params: Params) -> None:
    for name, certificate in params.certificate.items():
        if name not in params.variants:
            known = ", ".join(params.variants)
            raise ConfigError(
                f"{path}: certificate.{name}: no such variant{nearest(name, params.variants)}. Known: {known}."
            )
        if certificate.split == "val" and params.training.keep != "final":
            raise ConfigError(
                f"{path}: certificate.{name}.split: training.keep {params.training.keep} chooses the model by the "
                "validation images, so they cannot certify it. Set split: test, or training.keep: final."
            )


def _shortened(name: str) -> str:
    """A name that may be long or hold anything, for a message of one line."""
    shown = name if len(name) <= LONGEST_NAME else f"{name[:20]}... ({len(name)} characters)"
    return ascii(shown)[1:-1]
