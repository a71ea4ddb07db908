"""Study files (studies/*.yaml), which people write, become study.json. Runs on the machine with the stack."""

import shutil
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.data.prepared import Prepared
from components.dataclass_reader import read_dataclass
from components.errors import ConfigError, nearest
from components.files import atomic_directory, write_json
from components.objectives.registry import zoo
from pipelines.config.overrides import set_keys
from pipelines.config.params import load_params, validate_params
from pipelines.experiments.plan import PLAN, Plan
from pipelines.paths import PREPARED
from pipelines.tracking.provenance import git_commit

ZOO = "zoo"  # in the place of a params file's name


@dataclass(frozen=True)
class StudyFile:
    """What a study compares. Every key but the first two may be left out."""

    params: str  # a params file, relative to the folder in which the command is given
    seeds: tuple[int, ...]
    variants: str | None = None  # in the place of those of `params`: another params file's, or `zoo`: one of every term
    overrides: dict[str, Any] = field(default_factory=dict)  # dotted keys of the params file, for every model
    # name → dotted keys for it alone, and `variant`: which of the params file's it is (default: the one of that name).
    # No models: every variant of the params file, as it is, and those that overrides add as `variants.NAME`. Students
    # of the params file are left out.
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    split_by_seed: bool = False  # a seed also decides the splits: each prepares the images anew; for small sets
    baselines: bool = False  # measure the probes on raw pixels and on an untrained encoder, too
    peak_tflops: float | None = None  # of the GPU in training's precision, by its data sheet: what MFU is a share of

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must list at least one seed, and none twice")
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ValueError("peak_tflops must be positive")


def make_plan(file: Path, folder: Path, data: Path | None = None) -> Plan:
    """Write study.json to a folder, with a copy of a prepared data set where one is given.

    Without one, the images are prepared where the study runs, from the sources that its parameters name.

    Raises:
        ConfigError: the study file, a model's parameters or the data set does not fit. Nothing is written then.
    """
    study = _read(file)
    plan = Plan(
        name=file.stem,
        seeds=study.seeds,
        models=_models(file, study),
        split_by_seed=study.split_by_seed,
        baselines=study.baselines,
        peak_tflops=study.peak_tflops,
        source=git_commit(),
    )
    sections = {name: plan.params(name, 0).data for name in plan.models}
    first = next(iter(sections))
    for name, section in sections.items():
        if section != sections[first]:
            raise ConfigError(
                f"{file}: models.{name}: its `data` differs from that of {first}. A study prepares its images once: "
                "give `data` under `overrides`, or each its own study."
            )
    if data is not None:
        _copy_data(plan, data, folder / PREPARED)
    write_json(folder / PLAN, asdict(plan))
    return plan


def _read(file: Path) -> StudyFile:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not file.is_file():
        raise ConfigError(f"{file}: not found. studies/ holds examples.")
    try:
        return read_dataclass(StudyFile, YAML(typ="safe").load(file), str(file))
    except YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error


def _models(file: Path, study: StudyFile) -> dict[str, dict[str, Any]]:
    """Models that the file names must all be possible; of all variants, those that are not are told and left out."""
    source = Path(study.params)
    others = _variants_of(study.variants) if study.variants else {}
    overrides = others | study.overrides
    whole = [key.removeprefix("variants.") for key in study.overrides if key.startswith("variants.")]
    variants = others["variants"] if others else load_params(source).variants
    listed = [*variants, *(name for name in whole if "." not in name)]
    models = study.models or {name: {} for name in listed}
    found, refused = {}, {}
    for name, own in models.items():
        try:
            found[name] = _model(source, name, overrides | own)
        except ConfigError as error:
            refused[name] = ConfigError(f"{file}: models.{name}: {error}")
    if refused and (study.models or not found):
        raise next(iter(refused.values()))
    for why in refused.values():
        print(f"left out: {why}", file=sys.stderr)
    return found


def _variants_of(other: str) -> dict[str, Any]:
    """Overrides that put other variants in the place of a params file's own, and of what belongs to those."""
    from ruamel.yaml import YAML

    if other != ZOO:
        load_params(Path(other))
    variants = zoo() if other == ZOO else YAML(typ="safe").load(Path(other))["variants"]
    return {"variants": variants, "students": {}, "certificate": {}}


def _model(source: Path, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the params file with a model's settings, and no variant but its own, whatever the others are."""
    from ruamel.yaml import YAML

    load_params(source)
    raw: dict[str, Any] = YAML(typ="safe").load(source)
    set_keys(raw, deepcopy({key: value for key, value in settings.items() if key != "variant"}))
    variants, variant = raw["variants"], str(settings.get("variant", name))
    if not isinstance(variants, dict) or variant not in variants:
        validate_params(raw, source)  # an override may have spoilt the section
        if variant in raw["students"]:
            raise ConfigError(f"{variant!r} is a student, no variant. Variants: {', '.join(variants)}.")
        raise ConfigError(f"unknown variant {variant!r}{nearest(variant, variants)}. Known: {', '.join(variants)}.")
    raw |= {"variants": {name: variants[variant]}, "students": {}, "certificate": {}}
    validate_params(raw, source)
    return raw


def _copy_data(plan: Plan, data: Path, target: Path) -> None:
    if plan.split_by_seed:
        raise ConfigError("split_by_seed: each seed prepares the images anew; leave out --data.")
    prepared = Prepared.open(data)
    config = plan.params(next(iter(plan.models)), 0).data
    expected, found = (config.image_size, config.channels), (prepared.image_size, prepared.channels)
    if expected != found or set(config.ood) != set(prepared.ood):
        raise ConfigError(
            f"{data}: prepared with other parameters than the study's: image size and channels {found}, expected "
            f"{expected}; OOD sets {', '.join(prepared.ood)}, expected {', '.join(config.ood)}."
        )
    with atomic_directory(target) as copy:
        for entry in data.iterdir():
            shutil.copy2(entry, copy / entry.name)
