"""Confusion matrix and calibration curve as CSV, for `dvc plots`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.evaluation.csv_table import write_csv
from components.evaluation.probes.calibration import Reliability


def write_confusion(path: Path | str, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """One row a test image, `actual,predicted`, as DVC's confusion template wants it, from counts (K, K)."""
    pairs = np.argwhere(confusion > 0)
    rows = (
        (classes[actual], classes[predicted]) for actual, predicted in np.repeat(pairs, confusion[confusion > 0], 0)
    )
    write_csv(path, ("actual", "predicted"), rows)


def write_reliability(path: Path | str, reliability: Reliability) -> None:
    """One row a bin that has predictions: `confidence,accuracy,count`."""
    filled = np.flatnonzero(reliability.counts)
    rows = ((reliability.confidence[b], reliability.accuracy[b], reliability.counts[b]) for b in filled)
    write_csv(path, ("confidence", "accuracy", "count"), rows)
