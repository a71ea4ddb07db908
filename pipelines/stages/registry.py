"""Which stages there are: the modules of this package that declare `STAGE = Stage(…)`, each under its module's name.

A declaration is read without importing its module, and with it torch: that takes 0.02 s for all of them instead of 2 s.
"""

import ast
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal

from pipelines import stages as package


@dataclass(frozen=True)
class Stage:
    """What is known of a stage without running it; every value is a literal.

    `per` says what it runs once for: a run, each variant, each student, each encoder (variants and students), or what
    params.yaml names under the stage's own name. dvc.yaml says the same with `foreach`.
    """

    does: str  # in a few words, for the report page
    per: Literal["run", "variant", "student", "encoder", "request"]
    after: tuple[str, ...] = ()
    in_report: Literal["numbers", "run"] | None = None  # of a model: with its numbers, or its MLflow run alone


def all_stages() -> dict[str, Stage]:
    """All stages by name, each behind those that it comes after."""
    return _read(tuple(package.__path__))


def reported(shared: bool = False) -> tuple[str, ...]:
    """Stages whose numbers are in the report of a model: its own or, `shared`, those of all models."""
    return tuple(n for n, s in all_stages().items() if s.in_report == "numbers" and (s.per == "run") == shared)


@cache
def _read(folders: tuple[str, ...]) -> dict[str, Stage]:
    found = {}
    for file in sorted(file for folder in folders for file in Path(folder).glob("*.py")):
        for statement in ast.parse(file.read_text()).body:
            match statement:
                case ast.Assign([ast.Name("STAGE")], ast.Call(keywords=given)):
                    found[file.stem] = Stage(**{str(word.arg): ast.literal_eval(word.value) for word in given})
    order = TopologicalSorter({name: stage.after for name, stage in found.items()}).static_order()
    return {name: found[name] for name in order}
