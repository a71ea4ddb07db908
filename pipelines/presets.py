"""`python -m pipelines.presets NAME`: make presets/NAME.yaml the present params.yaml, and lose nobody's edits."""

import difflib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from components.errors import ConfigError
from components.files import atomic_file
from pipelines.config import PARAMS, load_params

PRESETS = Path("presets")


def use(name: str) -> str:
    """Copy a preset to params.yaml; returns what was done, in one sentence.

    Raises:
        ConfigError: no such preset, an invalid one, or params.yaml holds edits that are in no preset.
    """
    known = {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {close[0]!r}" if close else ""
        raise ConfigError(f"unknown preset {name!r}{hint}. {PRESETS}/ has: {', '.join(known)}.")
    load_params(known[name])
    if PARAMS.exists():
        present = PARAMS.read_bytes()
        if present == known[name].read_bytes():
            return f"{PARAMS} is preset {name} already"
        if all(present != path.read_bytes() for path in known.values()):
            raise ConfigError(
                f"{PARAMS} holds edits of yours that preset {name} would overwrite. "
                f"Keep them (mv {PARAMS} {PRESETS}/mine.yaml) or drop them (git checkout {PARAMS}), then run again."
            )
    with atomic_file(PARAMS) as temporary:
        shutil.copyfile(known[name], temporary)
    return f"{PARAMS} is preset {name} now"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 for a mistake."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1:
        print("usage: python -m pipelines.presets NAME", file=sys.stderr)
        return 2
    try:
        print(use(given[0]))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
