"""Curves as CSV, for `dvc plots`."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.ood.metrics import roc_curve
from components.evaluation.probes.calibration import Reliability
from components.files import atomic_file

ROC_POINTS = 201


def write_confusion(path: Path | str, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """One row a test image, `actual,predicted`, as DVC's confusion template wants it, from counts (K, K)."""
    pairs = np.argwhere(confusion > 0)
    rows = (
        (classes[actual], classes[predicted]) for actual, predicted in np.repeat(pairs, confusion[confusion > 0], 0)
    )
    _write(path, ("actual", "predicted"), rows)


def write_reliability(path: Path | str, reliability: Reliability) -> None:
    """One row a bin that has predictions: `confidence,accuracy,count`."""
    filled = np.flatnonzero(reliability.counts)
    rows = ((reliability.confidence[b], reliability.accuracy[b], reliability.counts[b]) for b in filled)
    _write(path, ("confidence", "accuracy", "count"), rows)


def write_roc(path: Path | str, scores: Mapping[str, np.ndarray], sets: Sequence[str]) -> None:
    """ROC curves of one detector at 201 false positive rates: `false_positive_rate,mean` and a column an OOD set.

    `scores`: `test` and each of `sets` → (N,). `mean` is the mean true positive rate over the sets, so that the file
    has one column of the same name whatever the sets are.
    """
    grid = np.linspace(0, 1, ROC_POINTS)
    curves = [np.interp(grid, *roc_curve(scores["test"], scores[name])) for name in sets]
    columns = np.stack([grid, np.mean(curves, axis=0), *curves], axis=1)  # (201, 2 + sets)
    _write(path, ("false_positive_rate", "mean", *sets), columns.tolist())


def _write(path: Path | str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
