"""What the page shows, as plain values for the template; nothing here depends on the clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from components.distillation.config import StudentConfig
from components.evaluation.config import EXPORTED
from components.evaluation.ood import registry
from components.files import read_json, read_rows, read_table
from components.objectives.config import VariantConfig
from pipelines.comparison import Row
from pipelines.config.flatten import flat
from pipelines.metrics import Metric, compared
from pipelines.stages.registry import all_stages
from pipelines.stages.stage_run import RECORD

ACCURACIES = {"linear": "linear probe", "knn": "k-NN"}
BASELINE_TITLES = {"raw_pixels": "raw pixels", "random_encoder": "untrained encoder"}
LOSSES = {  # of a student, in words
    "crd": "telling which image the teacher's features are of",
    "kd": "giving the answers of the teacher's linear probe",
    "regression": "predicting the teacher's features",
    "clusterfit": "telling which cluster of the teacher's features an image belongs to",
}


@dataclass(frozen=True)
class Report:
    """A variant or student as the report stage left it."""

    name: str
    settings: VariantConfig | StudentConfig
    folder: Path  # that `report` wrote
    row: Row
    score: float
    unmet: Sequence[str]  # conditions of the gate
    colour: str

    @cached_property
    def stages(self) -> dict[str, Any]:
        """{stage: {metrics, constants, record}}"""
        own = {"metrics": {}, "constants": {}, "record": read_json(self.folder / RECORD)}
        return {**read_json(self.folder / "stages.json"), "report": own}

    @property
    def record(self) -> Mapping[str, Any]:
        """That of the report stage itself: the last of a variant's."""
        return dict(self.stages["report"]["record"])

    def metrics(self, stage: str) -> dict[str, float]:
        return dict(self.stages[stage]["metrics"])


def table(reports: Sequence[Report]) -> dict[str, list[dict[str, Any]]]:
    """The comparison, {group: a row a measure}; a row: title, meaning, up, cells {text, spread, best}, baselines."""
    baselines = reports[0].metrics("baselines")
    groups: dict[str, list[dict[str, Any]]] = {metric.group: [] for metric in compared()}
    for column in compared():
        best = _best(column, reports)
        cells = []
        for report in reports:
            text, spread = shown(column, report.row[column.name]), _spread(column, report.metrics(column.stage))
            cells.append({"text": text, "spread": spread if text else None, "best": text is not None and text == best})
        if not any(cell["text"] for cell in cells):
            continue
        known = column.stage == "probe"
        groups[column.group].append(
            {
                "title": column.title,
                "meaning": column.meaning,
                "up": column.higher_is_better,
                "cells": cells,
                "baselines": [
                    shown(column, baselines.get(f"{name}/{column.key}") if known else None) for name in BASELINE_TITLES
                ],
            }
        )
    return {heading: rows for heading, rows in groups.items() if rows}


def strengths(report: Report, reports: Sequence[Report]) -> dict[str, list[str]]:
    """Where a variant is best and where it is last, as "title value"; measures in which all are equal tell nothing."""
    told: dict[str, list[str]] = {"best": [], "last": []}
    for column in compared():
        texts = {r.name: shown(column, r.row[column.name]) for r in reports}
        if texts[report.name] is None or len({text for text in texts.values() if text}) < 2:
            continue
        for end, winner in (("best", _best(column, reports)), ("last", _best(column, reports, reverse=True))):
            if texts[report.name] == winner:
                told[end].append(f"{column.title} {texts[report.name]}")
    return told


def objective(settings: VariantConfig | StudentConfig) -> str:
    """What a variant or student learns from, in words."""
    if isinstance(settings, StudentConfig):
        losses = [f"{LOSSES[name]} ({name}, weight {loss.weight:g})" for name, loss in settings.terms.items()]
        return f"{settings.teacher}, its teacher: {' and '.join(losses)}"
    weights = {"generative": settings.w_gen, "contrastive": settings.w_con}
    parts = [f"{term.words.learns} ({term.name}, weight {weights[term.section]:g})" for term in settings.terms]
    return " and ".join(parts)


def detectors(report: Report, distances: Mapping[str, str]) -> list[dict[str, Any]]:
    """The detectors' table, a row each, best mean AUROC first: {name, meaning, false_alarms, sets: [cell]}."""
    metrics = report.metrics("ood")
    names = [key.removesuffix("/threshold") for key in metrics if key.endswith("/threshold")]
    names.sort(key=lambda name: -metrics[f"{name}/mean/auroc"])
    top = {s: max(f"{metrics[f'{name}/{s}/auroc']:.3f}" for name in names) for s in distances}
    return [
        {
            "name": name,
            "meaning": _meaning(name),
            "false_alarms": f"{metrics[f'{name}/test/flagged']:.1%}",
            "sets": [
                {
                    "auroc": f"{metrics[f'{name}/{s}/auroc']:.3f}",
                    "interval": f"{metrics[f'{name}/{s}/auroc_low']:.3f} to {metrics[f'{name}/{s}/auroc_high']:.3f}",
                    "flagged": f"{metrics[f'{name}/{s}/flagged']:.0%}",
                    "best": f"{metrics[f'{name}/{s}/auroc']:.3f}" == top[s],
                }
                for s in distances
            ],
        }
        for name in names
    ]


def hardest(report: Report) -> list[dict[str, Any]]:
    """What each detector gets most wrong, the exported score first: {name, meaning, threshold, ood, test}."""
    metrics = report.metrics("ood")
    found: dict[str, dict[str, Any]] = {}
    for row in read_table(report.folder / "hardest.parquet").to_pylist():
        of_detector = found.setdefault(
            row["detector"], {"threshold": f"{metrics[row['detector'] + '/threshold']:.3g}", "ood": [], "test": []}
        )
        kind = "test" if row["set"] == "test" else "ood"
        of_detector[kind].append(
            {**row, "score": f"{row['score']:#.3g}".rstrip("."), "wrong": row["flagged"] == (kind == "test")}
        )
    names = sorted(found, key=lambda name: name != EXPORTED)
    return [{"name": name, "meaning": _meaning(name), **found[name]} for name in names]


def layers(report: Report) -> list[dict[str, str]]:
    """The rows of layers.csv; none where the probe stage wrote no such file."""
    path = report.folder / "layers.csv"
    if not path.exists():
        return []
    return read_rows(path, ["layer"])


def not_measured(reports: Sequence[Report]) -> list[str]:
    """What a reader might take for shown and is not."""
    seed = reports[0].stages["pretrain"]["constants"]["seed"]
    told = [
        f"One seed ({seed}). How much the numbers move with the seed is not on this page; ± is the standard error over "
        "test images, and for few labels the deviation over draws of the labels.",
        "Foreign images of other kinds than the OOD sets above. A set that is easy here says nothing about another.",
        "Speed on other hardware than that of the table of stages.",
    ]
    for report in reports:
        missing = [c.title for c in compared() if report.row[c.name] is None]
        if missing:
            told.append(f"{report.name} has no {', '.join(missing)}.")
        reasons: dict[str, list[str]] = {}
        for name, reason in read_json(report.folder / "left_out.json").items():
            reasons.setdefault(reason, []).append(name)
        told += [
            f"{report.name}: without the detectors {', '.join(names)} ({reason})." for reason, names in reasons.items()
        ]
    if not any(layers(report) for report in reports):
        told.append("What each layer of the network knows: no layers.csv was written.")
    return told


def stages(reports: Sequence[Report]) -> list[dict[str, str]]:
    """When, from which commit and on what each stage ran; first those that all variants share."""
    shared = {stage: r for stage, r in reports[0].stages.items() if r["record"]["variant"] is None}
    own = [r for report in reports for stage, r in report.stages.items() if stage not in shared]
    known, rows = all_stages(), []
    for result in [*shared.values(), *own]:
        record = result["record"]
        tags = record.get("provenance", {})  # none in records of older versions
        cores = f"{tags['hardware.cores']} cores, {tags['hardware.memory']}" if "hardware.cores" in tags else None
        hardware = [tags.get("hardware.gpu"), tags.get("hardware.cpu"), cores]
        ran = record["stage"]  # `distill` where a student has it in place of `pretrain`
        rows.append(
            {
                "stage": " ".join(filter(None, [ran, record["variant"]])),
                "does": known[ran].does,
                "finished": moment(record["finished"]),
                "seconds": f"{record['seconds']:.1f}",
                "commit": commit(tags),
                "hardware": ", ".join(filter(None, hardware)) or "not recorded",
            }
        )
    return rows


def versions(reports: Sequence[Report]) -> list[tuple[str, str]]:
    """[(package, the versions that any stage ran with)]."""
    found: dict[str, set[str]] = {}
    for report in reports:
        for result in report.stages.values():
            for tag, value in result["record"].get("provenance", {}).items():
                if tag.startswith("version."):
                    found.setdefault(tag.removeprefix("version."), set()).add(value)
    return [(name, ", ".join(sorted(numbers))) for name, numbers in sorted(found.items())]


def settings(config: VariantConfig | StudentConfig) -> list[tuple[str, str]]:
    """All settings of a variant under dotted names; of a student those that are given."""
    given = flat(asdict(config)).items()
    return [(key, str(value)) for key, value in given if value is not None or isinstance(config, VariantConfig)]


def commit(tags: Mapping[str, str]) -> str:
    """The commit of provenance tags, shortened, and whether files differed from it."""
    if "mlflow.source.git.commit" not in tags:
        return "not recorded"
    return tags["mlflow.source.git.commit"][:10] + (", changed files" if tags.get("git.dirty") == "true" else "")


def moment(seconds: float) -> str:
    """Seconds since 1970 as a date and time."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def shown(column: Metric, value: float | None) -> str | None:
    """A number in its column's form."""
    return None if value is None or not math.isfinite(value) else f"{value:{column.form}}"


def _meaning(detector: str) -> str:
    """What a detector measures; nothing of one that is no more, in results of an older version."""
    return registry.load(detector).meaning if detector in registry.names() else ""


def _best(column: Metric, reports: Sequence[Report], reverse: bool = False) -> str | None:
    known = [value for report in reports if (value := report.row[column.name]) is not None]
    if len(known) < 2:
        return None
    return shown(column, max(known) if column.higher_is_better != reverse else min(known))


def _spread(column: Metric, metrics: Mapping[str, float]) -> str | None:
    for key in (f"{column.key}_se", f"{column.key.removesuffix('_accuracy')}_std"):
        if key in metrics:
            return f"± {metrics[key]:{column.form}}"
    return None
