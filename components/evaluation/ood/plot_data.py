"""ROC curves as CSV, for `dvc plots`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.evaluation.csv_table import write_csv
from components.evaluation.ood.metrics import roc_curve

ROC_POINTS = 201


def write_roc(path: Path | str, scores: Mapping[str, np.ndarray], sets: Sequence[str]) -> None:
    """ROC curves of one detector at 201 false positive rates: `false_positive_rate,mean` and a column an OOD set.

    `scores`: `test` and each of `sets` → (N,). `mean` is the mean true positive rate over the sets, so that the file
    has one column of the same name whatever the sets are.
    """
    grid = np.linspace(0, 1, ROC_POINTS)
    curves = [np.interp(grid, *roc_curve(scores["test"], scores[name])) for name in sets]
    columns = np.stack([grid, np.mean(curves, axis=0), *curves], axis=1)  # (201, 2 + sets)
    write_csv(path, ("false_positive_rate", "mean", *sets), columns.tolist())
