"""A sweep's results in one table and figure: mean ± standard deviation over seeds of each variant at each point, best
first."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.files import atomic_file
from components.markdown import literal, table
from components.plotting.methods import methods_figure
from pipelines.experiments.methods import panels
from pipelines.experiments.tables import spread
from pipelines.metrics import METRICS, compared, measured


@dataclass(frozen=True)
class Result:
    """One trained variant of one member of a sweep."""

    variant: str
    seed: int
    point: dict[str, Any]  # dotted key of params.yaml → value
    run_key: str  # the tag gcrl.run_key of its MLflow run
    numbers: dict[str, float]  # `score` and the comparison's columns, as far as the variant has them


def rank(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each variant and point (one a seed), the highest mean score first."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(f"{result.variant} {result.point}", []).append(result)
    return sorted(groups.values(), key=lambda group: mean(group, "score"), reverse=True)


def mean(group: Sequence[Result], name: str) -> float:
    """The mean of a number over seeds; −inf where one lacks it."""
    return statistics.fmean(result.numbers.get(name, -math.inf) for result in group)


def markdown(results: Sequence[Result], failures: Mapping[str, str]) -> str:
    """The table, one row a variant and point; below it the members that failed: {member: why}."""
    keys = list(results[0].point) if results else []
    columns = measured(result.numbers for result in results)
    titles = ["variant", *map(literal, keys), "score", *(column.title for column in columns), "seeds"]
    rows = []
    for group in rank(results):
        cells = [literal(str(name)) for name in (group[0].variant, *(group[0].point[key] for key in keys))]
        for name, form in [("score", ".4f"), *((column.name, column.form) for column in columns)]:
            cells.append(spread([result.numbers[name] for result in group if name in result.numbers], form))
        rows.append([*cells, str(len(group))])
    lines = [table(titles, rows), "", "Mean ± sample standard deviation over seeds."]
    if failures:
        lines += ["", "Failed:", *(f"- {literal(f'{member}: {message}')}" for member, message in failures.items())]
    return "\n".join(lines) + "\n"


def write_results(folder: Path, results: Sequence[Result], table: str) -> None:
    """Write `results.csv`, a line a result, and `ranking.md`."""
    keys = list(results[0].point) if results else []
    names = ["score", *(metric.name for metric in compared())]
    with atomic_file(folder / "results.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "seed", *keys, *names, "run_key"])
        for result in results:
            numbers = [result.numbers.get(name, "") for name in names]
            writer.writerow([result.variant, result.seed, *result.point.values(), *numbers, result.run_key])
    with atomic_file(folder / "ranking.md") as temporary:
        temporary.write_text(table)


def draw_results(results: Sequence[Result], kinds: Mapping[str, str], path: Path) -> None:
    """The variants at each point as a study's methods are drawn; `kinds` {variant: what it learns by}."""
    groups = {", ".join([group[0].variant, *map(str, group[0].point.values())]): group for group in rank(results)}
    found = {
        name: {key: [r.numbers[key] for r in group if key in r.numbers] for key in METRICS}
        for name, group in groups.items()
    }
    methods_figure({name: kinds[group[0].variant] for name, group in groups.items()}, panels(found), path)
