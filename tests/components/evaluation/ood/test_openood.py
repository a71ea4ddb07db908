import csv

import numpy as np
import pytest
from sklearn import metrics as sk

from components.evaluation.ood.openood import COLUMNS, markdown, openood_table, write_csv

RNG = np.random.default_rng(0)
DISTANCES = {"tiny": "near", "mnist": "far", "cifar100": "near"}
SCORES = {
    detector: {
        "val": RNG.normal(size=10),
        "test": RNG.normal(size=300).round(1),  # with ties
        "tiny": RNG.normal(shift, 1, 200).round(1),
        "mnist": RNG.normal(3 * shift, 1, 150).round(1),
        "cifar100": RNG.normal(shift, 2, 100).round(1),
    }
    for detector, shift in (("knn", 1.0), ("msp", 0.5))
}


def reference(test: np.ndarray, ood: np.ndarray) -> tuple[float, ...]:
    """The definitions of OpenOOD v1.5: OOD is positive, `conf` is high for ID, areas are trapezoidal."""
    conf = -np.concatenate([test, ood])
    ood_indicator = np.repeat([0, 1], [len(test), len(ood)])
    fpr, tpr, _ = sk.roc_curve(ood_indicator, -conf, drop_intermediate=False)
    precision_in, recall_in, _ = sk.precision_recall_curve(1 - ood_indicator, conf)
    precision_out, recall_out, _ = sk.precision_recall_curve(ood_indicator, -conf)
    return tuple(
        100 * value
        for value in (
            fpr[np.argmax(tpr >= 0.95)],
            sk.auc(fpr, tpr),
            sk.auc(recall_in, precision_in),
            sk.auc(recall_out, precision_out),
        )
    )


@pytest.fixture(scope="module")
def table():
    return openood_table(SCORES, DISTANCES)


def test_numbers_are_the_references(table):
    for detector, of_split in SCORES.items():
        for name in DISTANCES:
            assert table[detector][name] == pytest.approx(reference(of_split["test"], of_split[name]))


def test_averages_are_over_the_sets_of_a_distance(table):
    for rows in table.values():
        assert rows["nearood"] == pytest.approx(np.mean([rows["tiny"], rows["cifar100"]], axis=0))
        assert rows["farood"] == pytest.approx(rows["mnist"])


def test_id_and_ood_change_places_in_aupr():
    aside = {"d": {"test": np.zeros(90), "far-away": np.ones(10)}}
    mixed = {"d": {"test": np.zeros(90), "far-away": np.zeros(10)}}
    apart = openood_table(aside, {"far-away": "far"})["d"]["far-away"]
    assert dict(zip(COLUMNS, apart, strict=True)) == {"FPR@95": 0, "AUROC": 100, "AUPR_IN": 100, "AUPR_OUT": 100}
    equal = dict(zip(COLUMNS, openood_table(mixed, {"far-away": "far"})["d"]["far-away"], strict=True))
    assert equal["AUPR_IN"] > equal["AUPR_OUT"]  # chance level is the share of the positive class
    assert equal["AUROC"] == 50


def test_csv_has_a_row_a_detector_and_set(table, tmp_path):
    write_csv(table, tmp_path / "openood.csv")
    with (tmp_path / "openood.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["detector", "dataset", *COLUMNS]
    names = [row["dataset"] for row in rows if row["detector"] == "knn"]
    assert names == ["tiny", "cifar100", "nearood", "mnist", "farood"]  # in OpenOOD's order
    for row in rows:
        assert [float(row[c]) for c in COLUMNS] == pytest.approx(table[row["detector"]][row["dataset"]], abs=0.005)


def test_markdown_lays_detectors_beside_each_other(table):
    text = markdown(table, DISTANCES)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Averages over near-OOD and far-OOD sets",
        "## tiny (near)",
        "## cifar100 (near)",
        "## mnist (far)",
    ]
    averages = next(line for line in text.splitlines() if line.startswith("| knn"))
    cells = [cell.strip(" *") for cell in averages.strip("|").split("|")][1:]
    assert cells == [f"{n:.2f}" for n in (*table["knn"]["nearood"], *table["knn"]["farood"])]
    assert averages.count("**") == 16  # the shifted scores of knn are better in every column


def test_without_near_sets_there_is_no_near_average():
    table = openood_table(SCORES, {"mnist": "far"})
    assert list(table["knn"]) == ["mnist", "farood"]
    assert "near FPR@95" not in markdown(table, {"mnist": "far"})
