"""Which detectors there are: the files in detectors/, each under its name.

Their names are known without importing one of them, so that a configuration is checked without NumPy.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from components.errors import nearest
from components.evaluation.ood import detectors

ALL = "all"  # stands for every detector

if TYPE_CHECKING:
    from components.evaluation.ood.base import Detector


def names() -> list[str]:
    """All detectors' names, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(detectors.__path__))


def check_names(given: Sequence[str]) -> None:
    """Raises ValueError where a name is no detector's (nor ALL alone), or given twice."""
    known = [ALL] if ALL in given and len(given) == 1 else names()
    for name in given:
        if name not in known:
            close, expected = nearest(name, known), ", ".join(map(repr, known))
            raise ValueError(f"detectors: unknown value {name!r}{close}. Expected {expected}")
    if len(set(given)) != len(given):
        raise ValueError("detectors holds a name twice")


def load(name: str) -> "Detector":
    """The declaration of a detector."""
    detector: Detector = importlib.import_module(f"{detectors.__name__}.{name}").DETECTOR
    return detector


def load_all() -> dict[str, "Detector"]:
    """Every detector's declaration, by name: families in the order of `Family`, names in alphabetical order."""
    from components.evaluation.ood.base import Family

    found = {name: load(name) for name in names()}
    return dict(sorted(found.items(), key=lambda item: get_args(Family).index(item[1].family)))


def chosen(given: Sequence[str]) -> dict[str, "Detector"]:
    """The declarations of those that a configuration names; where it names none, of those that run by default."""
    if given and ALL not in given:
        return {name: load(name) for name in given}
    return {name: detector for name, detector in load_all().items() if given or detector.default}


def table() -> str:
    """All detectors as a Markdown table, for the docs."""
    lines = ["| name | looks at | needs | by default | measures | source |", "|---" * 6 + "|"]
    for name, d in load_all().items():
        cells = [name, d.family, ", ".join(d.needs) or "–", "yes" if d.default else "no", d.meaning, d.source]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
