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
from components.markdown import literal, table
from components.plotting.methods import Panel, methods_figure
from pipelines.comparison import Row, score
from pipelines.experiments.members import Member, members_of
from pipelines.experiments.tables import Numbers, baselines, numbers_of, spread
from pipelines.metrics import METRICS, Metric, compared

TABLE, NUMBERS, FIGURE = "methods.md", "methods.csv", "methods.png"
BITS, BOUND = "bits_per_dim", "bits_per_dim_bound"  # shown in one column: exact, or at most


@dataclass(frozen=True)
class Method:
    """A model of the study and what was found at each of its seeds."""

    name: str
    kind: str
    seeds: Sequence[Numbers]
    score: float  # the mean of the columns that gate.score names

    def values(self, metric: Metric) -> list[float]:
        """A metric at each seed that has it."""
        return [numbers[metric.address] for numbers in self.seeds if metric.address in numbers]

    @property
    def numbers(self) -> dict[str, list[float]]:
        """Every metric at each seed that has it."""
        return {metric.name: self.values(metric) for metric in METRICS.values()}


def write_methods(study: Path) -> str:
    """Write methods.md, methods.csv and methods.png to the study's folder; returns what methods.md holds.

    Raises:
        UserError: no model has been probed yet.
    """
    methods = methods_of(study)
    if not any(method.numbers["linear_accuracy"] for method in methods):
        raise UserError(f"{study}: no model there has been probed yet: `python -m pipelines.experiments run {study}`.")
    references = [Method(name, "baseline", found, -math.inf) for name, found in baselines(study).items()]
    text = _markdown([*methods, *references])
    with atomic_file(study / TABLE) as temporary:
        temporary.write_text(text)
    with atomic_file(study / NUMBERS) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(_csv_rows([*methods, *references]))
    methods_figure({m.name: m.kind for m in methods}, panels({m.name: m.numbers for m in methods}), study / FIGURE)
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
    for metric in compared():
        means[metric.name] = _mean([numbers[metric.address] for numbers in seeds if metric.address in numbers])
    return Method(name, params.variant(name).kind, seeds, score(means, params.gate.score))


def _markdown(methods: Sequence[Method]) -> str:
    columns = [m for m in _columns() if m.name != BOUND and any(method.values(m) for method in methods)]
    titles = ["method", "kind", "seeds", *(column.title for column in columns)]
    rows = []
    for method in methods:
        cells = [_bits(method) if m.name == BITS else spread(method.values(m), m.form) for m in columns]
        rows.append([literal(method.name), literal(method.kind), str(len(method.seeds)), *cells])
    notes = ["Mean ± sample standard deviation over seeds; the best mean of the columns in gate.score first."]
    if any(method.values(METRICS[BITS]) for method in methods):
        notes.append("bits/dim: exact, of test images; ≤ marks an upper bound, of validation images; – none.")
    return "\n".join([table(titles, rows), "", *notes]) + "\n"


def _bits(method: Method) -> str:
    exact, bound = method.values(METRICS[BITS]), method.values(METRICS[BOUND])
    if exact or not bound:
        return spread(exact, METRICS[BITS].form)
    return f"≤ {spread(bound, METRICS[BOUND].form)}"


def _columns() -> list[Metric]:
    return [metric for metric in METRICS.values() if metric.in_methods]


def _csv_rows(methods: Sequence[Method]) -> Iterator[list[object]]:
    names = [name for metric in _columns() for name in (metric.name, f"{metric.name}_std")]
    yield ["method", "kind", "seeds", *names]
    for method in methods:
        found = [method.values(metric) for metric in _columns()]
        numbers = [n for values in found for n in (_mean(values), _deviation(values))]
        yield [method.name, method.kind, len(method.seeds), *("" if n is None else n for n in numbers)]


def panels(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Panel]:
    """The figure's panels, those first of which more is better; `found` {method: {metric: its number at each seed}}."""
    drawn = []
    for metric in sorted(METRICS.values(), key=lambda metric: not metric.higher_is_better):
        if not metric.in_methods_figure:
            continue
        spreads = {
            method: (statistics.fmean(values), _deviation(values) or 0.0)
            for method, numbers in found.items()
            if (values := numbers.get(metric.name))
        }
        if spreads:
            drawn.append(Panel(metric.title, spreads, metric.higher_is_better))
    return drawn


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
