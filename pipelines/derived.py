"""`python -m pipelines derive`: write what documents and presets derive from declarations into them.

Such a part stands between a line with `derived: NAME` and one with `end of NAME`.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from components.dataclass_reader import read_dataclass
from components.files import atomic_file
from components.objectives.config import VariantConfig
from components.objectives.registry import CONTRASTIVE, GENERATIVE, table, zoo
from pipelines.config.params import load_params

WIDTH = 80  # DVC wraps longer lines when it writes a params file
METHODS, ZOO = Path("docs/methods.md"), Path("presets/zoo-digits-cpu.yaml")


def _zoo_lines() -> Iterator[str]:
    """The variants of the zoo that can be trained on this preset's images."""
    task = load_params(ZOO).task
    for name, settings in zoo().items():
        variant = read_dataclass(VariantConfig, settings)
        try:
            variant.check(task)
        except ValueError:
            continue
        label = " and ".join(term.words.label for term in variant.terms)
        parts = {key: json.dumps(value).replace('"', "") for key, value in settings.items()}
        line = f"  {name}: {{{', '.join(f'{key}: {value}' for key, value in parts.items())}}}"
        if len(line) <= WIDTH:
            yield f"{line}  # {label}"
        else:
            yield f"  {name}:  # {label}"
            yield from (f"    {key}: {value}" for key, value in parts.items())


PARTS: dict[str, tuple[Path, Callable[[], str]]] = {
    "contrastive terms": (METHODS, lambda: table(CONTRASTIVE)),
    "generative terms": (METHODS, lambda: table(GENERATIVE)),
    "zoo": (ZOO, lambda: "\n".join(_zoo_lines())),
}


def derived(name: str) -> tuple[Path, str]:
    """A file, and its text with the part of this name as the declarations say."""
    path, write = PARTS[name]
    pattern = rf"(^[^\n]*derived: {name}\b[^\n]*\n).*?(^[^\n]*end of {name}\b)"
    part = write()
    text, found = re.subn(pattern, lambda m: f"{m[1]}{part}\n{m[2]}", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert found == 1, f"{path} has one part {name!r}"
    return path, text


def write_derived() -> None:
    """Write every part."""
    for name in PARTS:
        path, text = derived(name)
        with atomic_file(path) as temporary:
            temporary.write_text(text)
