"""What a study found: mean ± standard deviation over seeds, as Markdown, and every number of every run as CSV."""

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.files import atomic_file, read_json
from components.markdown import literal, table
from pipelines.experiments.members import BASELINES, STAGES, Member, members_of
from pipelines.metrics import compared

TABLE, NUMBERS = "table.md", "numbers.csv"
MFU = "mfu"
SPEED = "pretrain/training_images_per_second"
EXTRA = (
    ("steps", "pretrain/steps", ",.0f"),
    ("images/s", SPEED, ",.0f"),
    ("MFU", MFU, ".1%"),
    ("peak GPU memory, GB", "pretrain/peak_memory_gb", ".1f"),
    ("validation k-NN", "pretrain/val/knn_accuracy", ".1%"),
    ("effective rank", "pretrain/val/effective_rank", ".1f"),
    ("validation nats/token", "pretrain/val/nll_nats_per_token", ".3f"),
)
NONE = "–"
BASELINE_TITLES = {"raw_pixels": "raw pixels", "random_encoder": "untrained encoder"}

Numbers = dict[str, float]  # STAGE/METRIC → number


def write_tables(study: Path, peak_tflops: float | None) -> str:
    """Write table.md and numbers.csv of all that has run so far; returns what table.md holds."""
    found = [(member, numbers_of(member, peak_tflops)) for member in members_of(study)]
    rows: dict[str, list[Numbers]] = {}
    for member, numbers in found:
        if numbers:
            rows.setdefault(member.model, []).append(numbers)
    text = markdown(baselines(study) | rows)
    with atomic_file(study / TABLE) as temporary:
        temporary.write_text(text)
    with atomic_file(study / NUMBERS) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "seed", "number", "value"])
        for member, numbers in found:
            writer.writerows([member.model, member.seed, name, value] for name, value in numbers.items())
    return text


def numbers_of(member: Member, peak_tflops: float | None) -> Numbers:
    """Every metric of the stages that have run, and the share of the GPU's peak that training reached."""
    found: Numbers = {}
    for stage in (s for s in STAGES if member.has_run(s)):
        found |= {f"{stage}/{name}": value for name, value in member.results(stage).items()}
    if peak_tflops is not None and SPEED in found:
        gflop = member.results("pretrain", "constants")["gflop_per_image"]
        found[MFU] = found[SPEED] * gflop / (1000 * peak_tflops * member.params.training.processes)
    return found


def markdown(rows: Mapping[str, Sequence[Numbers]]) -> str:
    """A table of the comparison's columns and of training itself, then AUROC of each detector; model → a row a seed."""
    columns = [(metric.title, metric.address, metric.form) for metric in compared()] + list(EXTRA)
    parts = [_table(rows, columns)]
    detectors = dict.fromkeys(
        name.split("/")[1] for found in rows.values() for numbers in found for name in numbers if _is_auroc(name)
    )
    for distance in ("near", "far"):
        of_detectors = [(name, f"ood/{name}/{distance}/auroc", ".3f") for name in detectors]
        if table := _table(rows, of_detectors):
            parts.append(f"AUROC on {distance}-OOD sets, by detector:\n\n{table}")
    return "\n".join([*parts, "Mean ± sample standard deviation over seeds.\n"])


def _is_auroc(name: str) -> bool:
    return name.startswith("ood/") and name.endswith("/mean/auroc")


def _table(rows: Mapping[str, Sequence[Numbers]], columns: Sequence[tuple[str, str, str]]) -> str:
    """Without columns that no model has, and models that have none of them; nothing where none is left."""
    known = {name for found in rows.values() for numbers in found for name in numbers}
    columns = [column for column in columns if column[1] in known]
    if not columns:
        return ""
    lines = []
    for model, found in rows.items():
        cells = [spread([n[name] for n in found if name in n], form) for _, name, form in columns]
        if set(cells) != {NONE}:
            lines.append([literal(model), str(sum(map(bool, found))), *cells])
    return table(["model", "seeds", *(title for title, *_ in columns)], lines) + "\n"


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± sample standard deviation; a dash where there is nothing."""
    if not values:
        return NONE
    mean = f"{statistics.fmean(values):{form}}"
    return f"{mean} ± {statistics.stdev(values):{form}}" if len(values) > 1 else mean


def baselines(study: Path) -> dict[str, list[Numbers]]:
    """Rows of the probes on raw pixels and on an untrained encoder, where they were measured."""
    found: dict[str, list[Numbers]] = {}
    for path in sorted((study / BASELINES).glob("*/outputs/baselines/results.json")):
        metrics = read_json(path, "metrics")
        for key, title in BASELINE_TITLES.items():
            own = {n.removeprefix(f"{key}/"): v for n, v in metrics.items() if n.startswith(f"{key}/")}
            found.setdefault(title, []).append({f"probe/{name}": value for name, value in own.items()})
    return found
