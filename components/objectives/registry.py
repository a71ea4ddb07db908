"""The terms by name. A term is a package in the room of its kind, with its declaration in `__init__.py` and its code,
which imports torch, in `term.py`. Nothing lists it."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, TypeVar

from components.objectives.settings import ContrastiveSettings, GenerativeSettings, TermSettings

ROOMS = ("contrastive", "clustering", "predictive", "generative", "adversarial")
Settings = TypeVar("Settings", bound=TermSettings)


def _declared() -> Iterator[type]:
    for room in ROOMS:
        package = importlib.import_module(f"components.objectives.{room}")
        for term in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            members = vars(importlib.import_module(term.name)).values()
            yield from (m for m in members if isinstance(m, type) and m.__module__ == term.name)


def _by_name(base: type[Settings]) -> dict[str, type[Settings]]:
    found: dict[str, type[Settings]] = {}
    for declared in _declared():
        if issubclass(declared, base) and hasattr(declared, "name"):
            if declared.name in found:
                raise TypeError(f"{declared.__module__}: another term is called {declared.name}, too")
            found[declared.name] = declared
    return found


CONTRASTIVE = _by_name(ContrastiveSettings)
GENERATIVE = _by_name(GenerativeSettings)
PAIRS = {  # in the zoo beside single terms
    "hybrid": {"generative": "autoregressive", "contrastive": "nt_xent"},
    "masked-simclr": {"generative": "masked", "contrastive": "nt_xent"},
}


def zoo() -> dict[str, dict[str, Any]]:
    """The variants of `make zoo`, as params.yaml has them: every term alone, and some pairs."""
    variants: dict[str, dict[str, Any]] = {}
    for declared in (*GENERATIVE.values(), *CONTRASTIVE.values()):
        generative = declared.section == GenerativeSettings.section
        weights = {"w_gen": float(generative), "w_con": float(not generative)}
        for variant, settings in (declared.zoo or {declared.name.replace("_", "-"): {}}).items():
            variants[variant] = {**weights, declared.section: {"name": declared.name, **settings}}
    for variant, names in PAIRS.items():
        variants[variant] = {"w_gen": 1.0, "w_con": 1.0, **{section: {"name": name} for section, name in names.items()}}
    return variants


def table(terms: dict[str, type[Settings]]) -> str:
    """The terms in words, a row each, in Markdown."""
    lines = ["| `name` | what it is | when to use it | what it costs |", "|---|---|---|---|"]
    for name, declared in terms.items():
        words = declared.words
        papers = ", ".join(f"[{authors}]({address})" for authors, address in words.papers.items())
        lines.append(f"| `{name}` | {words.label} ({papers}): {words.what} | {words.when} | {words.cost} |")
    return "\n".join(lines)
