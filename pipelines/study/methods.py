"""The methods that a study compared, side by side: one table, as Markdown and CSV, and one figure.

What has run so far counts; a method is a model of the study, its kind what its variant learns by.
"""

import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.files import atomic_file
from components.plotting.methods import Panel, methods_figure
from pipelines.comparison import COLUMNS as COMPARED
from pipelines.comparison import Row, score
from pipelines.study.members import Member, members_of
from pipelines.study.tables import Numbers, floors, numbers_of, spread

TABLE, NUMBERS, FIGURE = "methods.md", "methods.csv", "methods.png"
BOUND = "pretrain/val/bits_per_dim_bound"


@dataclass(frozen=True)
class Column:
    """One number a method; `key` is STAGE/METRIC."""

    name: str
    title: str
    key: str
    form: str


def _of_comparison(*names: str) -> tuple[Column, ...]:
    compared = {c.name: Column(c.name, c.title, f"{c.stage}/{c.metric}", c.form) for c in COMPARED}
    return tuple(compared[name] for name in names)


BITS = Column("bits_per_dim", "bits/dim", "embed/bits_per_dim/test", ".3f")
COLUMNS = (
    *_of_comparison("linear_accuracy", "knn_accuracy"),
    BITS,
    Column("bits_per_dim_bound", "bits/dim, bound", BOUND, ".3f"),
    *_of_comparison("near_ood_auroc", "far_ood_auroc", "calibration_error", "robustness"),
    Column("effective_rank", "effective rank", "pretrain/val/effective_rank", ".1f"),
    *_of_comparison("training_seconds"),
)
PANELS = ("linear_accuracy", "near_ood_auroc", "robustness", "bits_per_dim")


@dataclass(frozen=True)
class Method:
    """A model of the study and what was found at each of its seeds."""

    name: str
    kind: str
    seeds: Sequence[Numbers]
    score: float  # the mean of the columns that gate.score names

    def values(self, column: Column) -> list[float]:
        """A column's number at each seed that has it."""
        return [numbers[column.key] for numbers in self.seeds if column.key in numbers]

    @property
    def columns(self) -> dict[str, list[float]]:
        """All columns' numbers."""
        return {column.name: self.values(column) for column in COLUMNS}


def write_methods(study: Path) -> str:
    """Write methods.md, methods.csv and methods.png to the study's folder; returns what methods.md holds.

    Raises:
        UserError: no model has been probed yet.
    """
    methods = methods_of(study)
    if not any(method.values(COLUMNS[0]) for method in methods):
        raise UserError(f"{study}: no model there has been probed yet: `python -m pipelines.study run {study}`.")
    references = [Method(name, "floor", found, -math.inf) for name, found in floors(study).items()]
    text = _markdown([*methods, *references])
    with atomic_file(study / TABLE) as temporary:
        temporary.write_text(text)
    with atomic_file(study / NUMBERS) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(_csv_rows([*methods, *references]))
    methods_figure({m.name: m.kind for m in methods}, panels({m.name: m.columns for m in methods}), study / FIGURE)
    return text


def methods_of(study: Path) -> list[Method]:
    """Those that have been begun, the best score first."""
    members: dict[str, list[Member]] = {}
    for member in members_of(study):
        members.setdefault(member.model, []).append(member)
    found = [_method(name, of_model) for name, of_model in members.items()]
    return sorted(found, key=lambda method: method.score, reverse=True)


def _method(name: str, members: Sequence[Member]) -> Method:
    seeds = [numbers for member in members if (numbers := numbers_of(member, None))]
    params = members[0].params
    means: Row = {}
    for column in COMPARED:
        values = [n[key] for n in seeds if (key := f"{column.stage}/{column.metric}") in n]
        means[column.name] = statistics.fmean(values) if values else None
    return Method(name, params.variant(name).kind, seeds, score(means, params.gate.score))


def _markdown(methods: Sequence[Method]) -> str:
    columns = [c for c in COLUMNS if c.key != BOUND and any(method.values(c) for method in methods)]
    titles = ["method", "kind", "seeds", *(column.title for column in columns)]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for method in methods:
        cells = [_bits(method) if column is BITS else spread(method.values(column), column.form) for column in columns]
        lines.append(f"| {' | '.join([method.name, method.kind, str(len(method.seeds)), *cells])} |")
    notes = ["Mean ± sample standard deviation over seeds; the best mean of the columns in gate.score first."]
    if any(method.values(BITS) for method in methods):
        notes.append("bits/dim: exact, of test images; ≤ marks an upper bound, of validation images; – none.")
    return "\n".join([*lines, "", *notes]) + "\n"


def _bits(method: Method) -> str:
    exact, bound = (method.values(column) for column in COLUMNS if column.name.startswith("bits_per_dim"))
    if exact or not bound:
        return spread(exact, BITS.form)
    return f"≤ {spread(bound, BITS.form)}"


def _csv_rows(methods: Sequence[Method]) -> Iterator[list[object]]:
    names = [name for column in COLUMNS for name in (column.name, f"{column.name}_std")]
    yield ["method", "kind", "seeds", *names]
    for method in methods:
        found = [method.values(column) for column in COLUMNS]
        numbers = [n for values in found for n in (_mean(values), _deviation(values))]
        yield [method.name, method.kind, len(method.seeds), *("" if n is None else n for n in numbers)]


def panels(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Panel]:
    """The columns of the figure that some method has; `found` {method: {column: its number at each seed}}."""
    columns = {column.name: column for column in COMPARED}
    drawn = []
    for name in PANELS:
        spreads = {
            method: (statistics.fmean(values), _deviation(values) or 0.0)
            for method, numbers in found.items()
            if (values := numbers.get(name))
        }
        if spreads:
            drawn.append(Panel(columns[name].title, spreads, columns[name].higher_is_better))
    return drawn


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
