"""study.json: all that a machine without the stack needs to know of a study, validated where it was written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.dataclass_reader import read_dataclass
from components.errors import ConfigError
from components.files import read_json
from pipelines.config.params import Params

PLAN = "study.json"


@dataclass(frozen=True)
class Plan:
    """What study.json holds."""

    name: str
    seeds: tuple[int, ...]
    models: dict[str, dict[str, Any]]  # name → a params file's content, whose only variant has that name
    split_by_seed: bool
    baselines: bool
    peak_tflops: float | None
    source: dict[str, str]  # tags: the commit that it was written with

    def __post_init__(self) -> None:
        for name in self.models:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
                raise ValueError(f"models: a model's name is a folder's name, not {name[:100]!r}")

    @classmethod
    def open(cls, folder: Path) -> "Plan":
        """Raises ConfigError where there is none, or it was written by another version of this project."""
        if not (folder / PLAN).exists():
            raise ConfigError(
                f"{folder}: no {PLAN} there. `python -m pipelines.experiments plan FILE {folder}` writes one."
            )
        return read_dataclass(cls, read_json(folder / PLAN), PLAN)

    def params(
        self, model: str, seed: int, changes: Mapping[str, Any] | None = None, name: str | None = None
    ) -> Params:
        """The parameters of a model at a seed; `changes` (dotted key → value) make another model, of that name.

        Raises:
            ConfigError: an unknown key or a value that does not fit.
        """
        raw = changed(self.models[model], {"seed": seed, **(changes or {})})
        raw["variants"] = {name or model: raw["variants"][model]}
        return read_dataclass(Params, raw)


def changed(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested mappings with these values at these dotted keys."""
    copy = {key: changed(value, {}) if isinstance(value, Mapping) else value for key, value in raw.items()}
    for dotted, value in changes.items():
        *sections, last = dotted.split(".")
        place = copy
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{dotted}: {section} is a value, no section with keys.")
        place[last] = value
    return copy
