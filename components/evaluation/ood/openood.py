"""Results in the form of OpenOOD v1.5 (https://arxiv.org/abs/2306.09301), so that they can be laid beside its tables.

Percent, OOD as the positive class for FPR@95, AUROC and AUPR_OUT, ID for AUPR_IN; `nearood` and `farood` are the means
over their sets. AUPR is the trapezoidal area under the precision-recall curve there; ood_metrics.aupr is the average
precision, which interpolates nothing.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.evaluation.ood.metrics import auroc, fpr_at_tpr
from components.files import atomic_file

COLUMNS = ("FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT")

# detector → OOD set, nearood or farood → the numbers of COLUMNS, in percent
Table = dict[str, dict[str, tuple[float, ...]]]


def openood_table(scores: Mapping[str, Mapping[str, np.ndarray]], distances: Mapping[str, str]) -> Table:
    """Measure every detector.

    `scores`: detector → `test` and each OOD set → (N,); `distances`: OOD set → near or far.
    """
    table: Table = {}
    for detector, of_split in scores.items():
        rows: dict[str, tuple[float, ...]] = {}
        for distance in ("near", "far"):
            members = [name for name in distances if distances[name] == distance]
            rows |= {name: _measure(of_split["test"], of_split[name]) for name in members}
            if members:
                rows[f"{distance}ood"] = tuple(np.mean([rows[name] for name in members], axis=0).tolist())
        table[detector] = rows
    return table


def write_csv(table: Table, path: Path | str) -> None:
    """One row a detector and set: `detector,dataset` and COLUMNS, two decimals."""
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("detector", "dataset", *COLUMNS))
        for detector, rows in table.items():
            for name, numbers in rows.items():
                writer.writerow((detector, name, *(f"{number:.2f}" for number in numbers)))


def markdown(table: Table, distances: Mapping[str, str]) -> str:
    """Rows are detectors. The averages first, then each set; the best number of a column is bold."""
    averages = [name for name in ("nearood", "farood") if name in next(iter(table.values()))]
    parts = ["# OOD detection in the form of OpenOOD v1.5\n", "Percent. FPR@95: lower is better.\n"]
    parts += ["## Averages over near-OOD and far-OOD sets\n", _markdown_table(table, averages)]
    for name in sorted(distances, key=lambda name: distances[name] == "far"):
        parts += [f"## {name} ({distances[name]})\n", _markdown_table(table, [name])]
    return "\n".join(parts)


def _markdown_table(table: Table, names: Sequence[str]) -> str:
    prefix = {"nearood": "near ", "farood": "far "}
    header = [f"{prefix.get(name, '')}{column}" for name in names for column in COLUMNS]
    body = {detector: [f"{number:.2f}" for name in names for number in rows[name]] for detector, rows in table.items()}
    best = [
        (min if "FPR" in title else max)((cells[i] for cells in body.values()), key=float)
        for i, title in enumerate(header)
    ]
    lines = [f"| detector | {' | '.join(header)} |", "|---|" + "---:|" * len(header)]
    for detector, cells in body.items():
        shown = [f"**{cell}**" if cell == top else cell for cell, top in zip(cells, best, strict=True)]
        lines.append(f"| {detector} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _measure(test: np.ndarray, ood: np.ndarray) -> tuple[float, ...]:
    shares = (fpr_at_tpr(test, ood), auroc(test, ood), _aupr(-ood, -test), _aupr(test, ood))
    return tuple(100 * share for share in shares)


def _aupr(negative: np.ndarray, positive: np.ndarray) -> float:
    from sklearn.metrics import auc, precision_recall_curve

    is_positive = np.repeat([0, 1], [len(negative), len(positive)])
    precision, recall, _ = precision_recall_curve(is_positive, np.concatenate([negative, positive]))
    return float(auc(recall, precision))
