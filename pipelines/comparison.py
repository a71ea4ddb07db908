"""The comparison table: which numbers of a model matter first, how variants are ranked and when one may be champion."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from components.markdown import literal, table


@dataclass(frozen=True)
class Column:
    """One number a model, taken from a stage's results.json."""

    name: str
    title: str
    stage: str
    metric: str
    form: str
    higher_is_better: bool


COLUMNS = (
    Column("linear_accuracy", "linear probe", "probe", "linear_accuracy", ".1%", True),
    Column("knn_accuracy", "k-NN", "probe", "knn_accuracy", ".1%", True),
    Column("few_label_accuracy", "10 labels a class", "probe", "few_label_10_accuracy", ".1%", True),
    Column("calibration_error", "calibration error", "probe", "linear_ece_calibrated", ".3f", False),
    Column("bits_per_dim", "bits/dim", "embed", "bits_per_dim/test", ".3f", False),
    Column("near_ood_auroc", "near-OOD AUROC", "ood", "fused/near/auroc", ".3f", True),
    Column("far_ood_auroc", "far-OOD AUROC", "ood", "fused/far/auroc", ".3f", True),
    Column("ood_fpr95", "OOD FPR@95", "ood", "fused/mean/fpr95", ".3f", False),
    Column("robustness", "corrupted / clean accuracy", "ood", "robustness/relative_accuracy", ".1%", True),
    Column("training_seconds", "training s", "pretrain", "training_seconds", ".0f", False),
    Column("latency_ms", "ONNX ms/image", "export", "onnx_latency_ms", ".2f", False),
)

CURVES = ("nll_nats_per_token", "contrastive_loss", "val/knn_accuracy")  # of training, to lay over each other

# what a student and its teacher are compared by, besides their size
BESIDE = ("linear_accuracy", "knn_accuracy", "near_ood_auroc", "far_ood_auroc", "training_seconds", "latency_ms")


class Size(NamedTuple):
    """How large a model is: the parameters in its weights file, and the exported file."""

    parameters: int
    megabytes: float


Row = dict[str, float | None]  # column name → number; None where the variant has no such number


def row(metrics: Mapping[str, Mapping[str, float]]) -> Row:
    """A model's row from {stage: metrics}."""
    return {c.name: metrics.get(c.stage, {}).get(c.metric) for c in COLUMNS}


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


def measured(rows: Iterable[Mapping[str, float | None]]) -> list[Column]:
    """The columns in which at least one of the rows has a number."""
    known = list(rows)
    return [column for column in COLUMNS if any(row.get(column.name) is not None for row in known)]


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
    shown = [column for column in COLUMNS if column.name in BESIDE]
    titles = ["", "learns by", "parameters", "ONNX MB", *(column.title for column in shown)]
    lines = []
    for teacher in dict.fromkeys(teacher for teacher, _ in students.values()):
        of_teacher = {name: objective for name, (its, objective) in students.items() if its == teacher}
        for name, objective in {teacher: "(teacher)", **of_teacher}.items():
            values = [rows[name][column.name] for column in shown]
            numbers = ["–" if v is None else f"{v:{c.form}}" for c, v in zip(shown, values, strict=True)]
            size = [f"{sizes[name].parameters:,}", f"{sizes[name].megabytes:.2f}"]
            lines.append([literal(name), literal(objective), *size, *numbers])
    return table(titles, lines) + "\n"


def _cell(column: Column, rows: Mapping[str, Row], name: str) -> str:
    value = rows[name][column.name]
    if value is None:
        return "–"
    known = [v for r in rows.values() if (v := r[column.name]) is not None]
    best = max(known) if column.higher_is_better else min(known)
    shown = f"{value:{column.form}}"
    return f"**{shown}**" if value == best and len(known) > 1 else shown
