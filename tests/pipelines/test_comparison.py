import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.comparison import Row, Size, beside_teachers, markdown, row, score, unmet
from pipelines.metrics import METRICS, compared, measured

NAMES = [column.name for column in compared()]
shares = st.floats(0, 1)


def a_row(**numbers: float | None) -> Row:
    return {**dict.fromkeys(NAMES), **numbers}


def cells(table: str, variant: str) -> dict[str, str]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    found = next(line for line in lines if line[0] == variant)
    names = {column.title: column.name for column in compared()}
    return dict(zip([names.get(title, title) for title in lines[0]], found, strict=True))


def test_a_row_takes_each_number_from_its_stage():
    stages: dict[str, dict[str, float]] = {}
    for i, column in enumerate(compared()):
        stages.setdefault(column.stage, {})[column.key] = float(i)
    assert row(stages) == dict(zip(NAMES, map(float, range(len(NAMES))), strict=True))
    assert row({"probe": stages["probe"]})["near_ood_auroc"] is None
    assert row({}) == dict.fromkeys(NAMES)


@given(shares, shares)
def test_the_score_is_the_mean_of_its_columns(a, b):
    values = a_row(linear_accuracy=a, near_ood_auroc=b, knn_accuracy=0.3)
    assert score(values, ("linear_accuracy", "near_ood_auroc")) == pytest.approx((a + b) / 2)


def test_a_missing_number_ranks_last():
    assert score(a_row(linear_accuracy=1.0), ("linear_accuracy", "near_ood_auroc")) == -math.inf


@given(shares, shares)
def test_the_gate_opens_at_its_minimum(value, least):
    failed = unmet(a_row(linear_accuracy=value), {"linear_accuracy": least})
    assert bool(failed) == (value < least)


def test_the_gate_names_each_condition_that_fails():
    values = a_row(linear_accuracy=0.9, knn_accuracy=0.99)
    minimum = {"linear_accuracy": 0.95, "knn_accuracy": 0.95, "far_ood_auroc": 0.9}
    assert unmet(values, minimum) == [
        "linear_accuracy is 0.9, at least 0.95 is wanted",
        "far_ood_auroc is missing, at least 0.9 is wanted",
    ]
    assert unmet(values, None) == []


def test_the_table_has_the_best_first_and_marks_the_best_of_each_column():
    rows = {
        "generative": a_row(linear_accuracy=0.91, bits_per_dim=1.5, calibration_error=0.02),
        "hybrid": a_row(linear_accuracy=0.98, bits_per_dim=1.6, calibration_error=0.01),
        "contrastive": a_row(linear_accuracy=0.98, calibration_error=0.03),
    }
    table = markdown(rows, {"generative": 0.5, "hybrid": 0.9, "contrastive": -math.inf})
    order = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert order == ["hybrid", "generative", "contrastive"]
    assert cells(table, "hybrid")["linear_accuracy"] == cells(table, "contrastive")["linear_accuracy"] == "**98.0%**"
    assert cells(table, "generative")["linear_accuracy"] == "91.0%"
    assert cells(table, "generative")["bits_per_dim"] == "**1.500**"  # lower is better
    assert cells(table, "hybrid")["bits_per_dim"] == "1.600"
    assert cells(table, "hybrid")["calibration_error"] == "**0.010**"
    assert cells(table, "contrastive")["bits_per_dim"] == "–"
    assert cells(table, "contrastive")["score"] == "–"
    assert cells(table, "hybrid")["score"] == "0.9000"


def test_columns_that_no_variant_has_are_left_out():
    rows = {"hybrid": a_row(linear_accuracy=0.98, robustness=0.7), "contrastive": a_row(linear_accuracy=0.97)}
    assert [column.name for column in measured(rows.values())] == ["linear_accuracy", "robustness"]
    shown = cells(markdown(rows, dict.fromkeys(rows, 0.5)), "contrastive")
    assert list(shown) == ["variant", "score", "linear_accuracy", "robustness"]
    assert shown["robustness"] == "–"
    assert measured([]) == []


def test_a_variant_alone_is_not_marked():
    assert "**" not in markdown({"hybrid": a_row(linear_accuracy=0.98)}, {"hybrid": 0.98})


def test_a_note_stands_behind_its_variants_name():
    rows = {name: a_row(linear_accuracy=0.9) for name in ("hybrid", "small")}
    table = markdown(rows, {"hybrid": 0.9, "small": 0.8}, {"small": "hybrid's student"})
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["hybrid", "small (hybrid's student)"]


def test_students_stand_beside_their_teachers():
    assert set(NAMES) >= {metric.name for metric in METRICS.values() if metric.beside_teacher}
    names = ("hybrid", "contrastive", "generative", "a", "b", "c")
    rows = {name: a_row(linear_accuracy=0.9 + i / 100) for i, name in enumerate(names)}
    sizes = {name: Size(1000 * (i + 1), i / 4) for i, name in enumerate(names)}
    students = {"a": ("hybrid", "0.8 · crd"), "b": ("contrastive", "1 · kd"), "c": ("hybrid", "1 · regression")}
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in beside_teachers(students, rows, sizes).splitlines()
    ]
    assert all(len(line) == len(lines[0]) for line in lines)
    assert [line[:4] for line in lines[2:]] == [
        ["hybrid", "(teacher)", "1,000", "0.00"],
        ["a", "0.8 · crd", "4,000", "0.75"],
        ["c", "1 · regression", "6,000", "1.25"],
        ["contrastive", "(teacher)", "2,000", "0.25"],
        ["b", "1 · kd", "5,000", "1.00"],
    ]
    accuracy = lines[0].index("linear probe")
    assert [line[accuracy] for line in lines[2:]] == ["90.0%", "93.0%", "95.0%", "91.0%", "94.0%"]
    assert lines[2][lines[0].index("near-OOD AUROC")] == "–"
