"""Changes to a params file by dotted keys, such as `{"training.steps": 800}`, strictly checked like the file itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.errors import ConfigError, nearest
from components.files import atomic_file
from pipelines.config.params import PARAMS, Params, load_params


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
            yaml.dump(raw, temporary)
            params = load_params(temporary, f"{PARAMS} with overrides")
        else:
            temporary.write_bytes(content)
    return params


def set_keys(raw: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Put these values at these dotted keys of what a params file holds, which is to be validated afterwards.

    A section on the way that is missing is made, except beside sections that have names of the user's: a variant
    or an OOD set is given as a whole.

    Raises:
        ConfigError: there is no such section.
    """
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place: Any = raw
        for depth, section in enumerate(sections, 1):
            if place.get(section) is None:
                if place and all(isinstance(sibling, dict) for sibling in place.values()):
                    hint = f"{nearest(section, place)}. Known: {', '.join(map(str, place))}"
                    raise ConfigError(f"overrides: {key}: unknown section {section!r}{hint}.")
                place[section] = {}
            place = place[section]
            if not isinstance(place, dict):
                where = ".".join(sections[:depth])
                raise ConfigError(f"overrides: {key}: {where} is a value ({place!r}), no section with keys.")
        place[last] = value
