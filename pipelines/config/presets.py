"""Presets: complete params files, one of which can be made the present params.yaml; no edit is lost."""

import shutil
from pathlib import Path

from components.errors import ConfigError, nearest
from components.files import atomic_file
from pipelines.config.params import PARAMS, load_params

PRESETS = Path("presets")


def find(name: str, folder: Path = PRESETS) -> Path:
    """The file of a preset; a ConfigError names the nearest where there is none."""
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise ConfigError(f"unknown preset {name!r}{nearest(name, known)}. {PRESETS}/ has: {', '.join(known)}.")
    return known[name]


def use(name: str) -> str:
    """Copy a preset to params.yaml; returns what was done, in one sentence.

    Raises:
        ConfigError: no such preset, an invalid one, or params.yaml holds edits that are in no preset.
    """
    preset = find(name)
    load_params(preset)
    if PARAMS.exists():
        present = PARAMS.read_bytes()
        if present == preset.read_bytes():
            return f"{PARAMS} is preset {name} already"
        if all(present != path.read_bytes() for path in PRESETS.glob("*.yaml")):
            raise ConfigError(
                f"{PARAMS} holds edits of yours that preset {name} would overwrite. "
                f"Keep them (mv {PARAMS} {PRESETS}/mine.yaml) or drop them (rm {PARAMS}), then run again."
            )
    with atomic_file(PARAMS) as temporary:
        shutil.copyfile(preset, temporary)
    return f"{PARAMS} is preset {name} now"
