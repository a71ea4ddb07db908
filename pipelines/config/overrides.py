"""Changes to a params file by dotted keys, such as `{"training.steps": 800}`, strictly checked like the file itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.errors import ConfigError
from components.files import atomic_file
from pipelines.config.params import PARAMS, Params, keys_at, load_params, nearest, validate_params


def write_params(source: Path, overrides: Mapping[str, Any], target: Path) -> Params:
    """Write the params file `source` to `target`, with these values at these dotted keys and its comments kept.

    Sections and values follow params.yaml's rules; a whole new variant may be given as `variants.NAME`.

    Raises:
        ConfigError: the file or an override is invalid. Nothing is written then.
    """
    params = load_params(source)
    content = source.read_bytes()
    with atomic_file(target) as temporary:
        if overrides:
            yaml = YAML()
            yaml.width = 4096  # lines stay as they are
            raw = yaml.load(content)
            set_keys(raw, overrides)
            params = validate_params(raw, f"{PARAMS} with overrides")
            yaml.dump(raw, temporary)
        else:
            temporary.write_bytes(content)
    return params


def set_keys(raw: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Put these values at these dotted keys of what a params file holds, which is not validated here.

    A missing section on the way is made where params.yaml knows it; an unknown one would be a typing mistake.

    Raises:
        ConfigError: there is no such section.
    """
    for key, value in overrides.items():
        _set(raw, key, value)


def _set(raw: Any, key: str, value: Any) -> None:
    *sections, last = key.split(".")
    place: tuple[str, ...] = ()
    for section in sections:
        if raw.get(section) is None:
            fields = keys_at(place)
            if section not in fields:
                known = fields or [str(name) for name in raw]
                hint = f"{nearest(section, known)}. Known: {', '.join(known)}"
                raise ConfigError(f"overrides: {key}: unknown section {section!r}{hint}.")
            raw[section] = {}
        raw = raw[section]
        place += (section,)
        if not isinstance(raw, dict):
            raise ConfigError(f"overrides: {key}: {'.'.join(place)} is a value ({raw!r}), no section with keys.")
    raw[last] = value
