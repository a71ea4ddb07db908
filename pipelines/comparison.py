"""The comparison table: how variants are ranked and when one may be champion."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from components.markdown import literal, table
from pipelines.metrics import METRICS, Metric, compared, measured

CURVES = ("nll_nats_per_token", "contrastive_loss", "val/knn_accuracy")  # of training, to lay over each other


class Size(NamedTuple):
    """How large a model is: the parameters in its weights file, and the exported file."""

    parameters: int
    megabytes: float


Row = dict[str, float | None]  # name of a metric → number; None where the variant has no such number


def row(metrics: Mapping[str, Mapping[str, float]]) -> Row:
    """A model's row from {stage: metrics}."""
    return {metric.name: metrics.get(metric.stage, {}).get(metric.key) for metric in compared()}


def score(values: Row, columns: Sequence[str]) -> float:
    """What variants are ranked by: the mean of these columns; −inf where one is missing."""
    numbers = [values[c] for c in columns]
    return sum(n for n in numbers if n is not None) / len(numbers) if None not in numbers else -math.inf


def unmet(values: Row, minimum: Mapping[str, float] | None) -> list[str]:
    """The gate's conditions that a row fails, as sentences; empty means that it passes."""
    failed = []
    for column, least in (minimum or {}).items():
        value = values[column]
        if value is None or value < least:
            found = "missing" if value is None else f"{value:.4g}"
            failed.append(f"{column} is {found}, at least {least:.4g} is wanted")
    return failed


def markdown(rows: Mapping[str, Row], scores: Mapping[str, float], notes: Mapping[str, str] | None = None) -> str:
    """The table, best variant first; the best number of each column is bold. Columns without any are left out. Notes
    stand behind the names."""
    names = sorted(rows, key=lambda n: scores[n], reverse=True)
    columns = measured(rows.values())
    lines = []
    for name in names:
        shown = f"{scores[name]:.4f}" if math.isfinite(scores[name]) else "–"
        note = f" ({notes[name]})" if notes and name in notes else ""
        lines.append([literal(f"{name}{note}"), shown, *(_cell(c, rows, name) for c in columns)])
    return table(["variant", "score", *(c.title for c in columns)], lines) + "\n"


def beside_teachers(students: Mapping[str, tuple[str, str]], rows: Mapping[str, Row], sizes: Mapping[str, Size]) -> str:
    """A table of each teacher and, below it, its students {name: (teacher, objective)}."""
    shown = [metric for metric in METRICS.values() if metric.beside_teacher]
    titles = ["", "learns by", "parameters", "ONNX MB", *(metric.title for metric in shown)]
    lines = []
    for teacher in dict.fromkeys(teacher for teacher, _ in students.values()):
        of_teacher = {name: objective for name, (its, objective) in students.items() if its == teacher}
        for name, objective in {teacher: "(teacher)", **of_teacher}.items():
            values = [rows[name][metric.name] for metric in shown]
            numbers = ["–" if v is None else f"{v:{c.form}}" for c, v in zip(shown, values, strict=True)]
            size = [f"{sizes[name].parameters:,}", f"{sizes[name].megabytes:.2f}"]
            lines.append([literal(name), literal(objective), *size, *numbers])
    return table(titles, lines) + "\n"


def _cell(column: Metric, rows: Mapping[str, Row], name: str) -> str:
    value = rows[name][column.name]
    if value is None:
        return "–"
    known = [v for r in rows.values() if (v := r[column.name]) is not None]
    best = max(known) if column.higher_is_better else min(known)
    shown = f"{value:{column.form}}"
    return f"**{shown}**" if value == best and len(known) > 1 else shown
