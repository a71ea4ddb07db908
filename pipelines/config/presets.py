"""`python -m pipelines.config.presets NAME`: make presets/NAME.yaml the present params.yaml; no edit is lost."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from components.errors import ConfigError, UserError, nearest, os_errors_explained
from components.files import atomic_file
from pipelines.config.params import PARAMS, load_params

PRESETS = Path("presets")


def find(name: str, folder: Path = PRESETS) -> Path:
    """The file of a preset; a ConfigError names the nearest where there is none."""
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise ConfigError(f"unknown preset {name!r}{nearest(name, known)}. {PRESETS}/ has: {', '.join(known)}.")
    return known[name]


@os_errors_explained()
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 for a mistake."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1:
        print("usage: python -m pipelines.config.presets NAME", file=sys.stderr)
        return 2
    try:
        print(use(given[0]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
