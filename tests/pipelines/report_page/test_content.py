import pytest

from components.distillation.config import (
    ClusterFitConfig,
    CrdConfig,
    KdConfig,
    RegressionConfig,
    StudentConfig,
    StudentModel,
)
from pipelines.metrics import METRICS, compared
from pipelines.report_page import content
from pipelines.stages.registry import reported


def rows_of(reports) -> dict[str, dict]:
    return {row["title"]: row for rows in content.table(reports).values() for row in rows}


def test_everything_has_its_words():
    assert all(metric.meaning and metric.group for metric in compared())
    losses = {"crd": CrdConfig(), "kd": KdConfig(), "regression": RegressionConfig(), "clusterfit": ClusterFitConfig()}
    assert set(StudentConfig("hybrid", **losses).terms) == set(content.LOSSES)


def test_the_best_of_a_measure_is_marked_whichever_way_is_better(reports):
    rows = rows_of(reports)
    assert [cell["best"] for cell in rows["linear probe"]["cells"]] == [False, True]
    assert [cell["best"] for cell in rows["OOD FPR@95"]["cells"]] == [True, False]
    assert [cell["best"] for cell in rows["far-OOD AUROC"]["cells"]] == [True, True]  # the same, as far as is shown
    assert [cell["text"] for cell in rows["bits/dim"]["cells"]] == ["1.500", None]
    assert not any(cell["best"] for cell in rows["bits/dim"]["cells"])  # nothing to compare with
    assert "k-NN" not in rows  # no variant has it


def test_numbers_stand_with_their_spread_and_floor(reports):
    rows = rows_of(reports)
    assert [cell["spread"] for cell in rows["linear probe"]["cells"]] == ["± 1.2%"] * 2
    assert rows["linear probe"]["baselines"] == ["61.1%", "22.2%"]
    assert rows["OOD FPR@95"]["baselines"] == [None, None]
    assert [cell["spread"] for cell in rows["OOD FPR@95"]["cells"]] == [None, None]


def test_strengths(reports, make_report):
    hybrid, contrastive = reports
    assert content.strengths(hybrid, reports) == {"best": ["OOD FPR@95 0.100"], "last": ["linear probe 95.1%"]}
    assert content.strengths(contrastive, reports) == {"best": ["linear probe 96.0%"], "last": ["OOD FPR@95 0.300"]}
    assert content.strengths(hybrid, [hybrid]) == {"best": [], "last": []}


def test_detectors_best_first_with_interval(reports):
    first, second = content.detectors(reports[0], {"held-out": "near", "patches": "far"})
    assert (first["name"], second["name"]) == ("fused", "knn")
    assert first["sets"] == [
        {"auroc": "0.900", "interval": "0.850 to 0.950", "flagged": "66%", "best": True},
        {"auroc": "0.900", "interval": "0.850 to 0.950", "flagged": "66%", "best": True},
    ]
    assert not any(cell["best"] for cell in second["sets"])
    assert first["false_alarms"] == "4.1%"


def test_wrong_are_missed_ood_images_and_flagged_test_images(reports):
    first, second = content.hardest(reports[0])
    assert (first["name"], second["name"]) == ("fused", "knn")
    assert [(item["set"], item["score"], item["wrong"]) for item in first["ood"]] == [
        ("held-out", "1.25", True),
        ("patches", "2.50", False),
    ]
    assert [(item["class_name"], item["wrong"]) for item in first["test"]] == [("eight", True)]
    assert first["threshold"] == "1.5"


def test_what_was_not_measured(reports, make_report):
    told = "\n".join(content.not_measured(reports))
    assert "One seed (3)" in told
    assert "contrastive: without the detectors nll (it needs a likelihood)." in told
    assert "hybrid has no k-NN, " in told
    assert "layers.csv" in told
    layered = make_report(2, "layered", {}, layers=True)
    assert "layers.csv" not in "\n".join(content.not_measured([*reports, layered]))


def test_every_stage_with_its_commit_once(reports):
    rows = content.stages(reports)
    assert [row["stage"] for row in rows] == [
        *("prepare", "baselines"),
        *(f"{stage} {name}" for name in ("hybrid", "contrastive") for stage in (*reported(), "report")),
    ]
    assert rows[2]["finished"] == "2027-01-15 08:00 UTC"
    assert rows[2]["commit"] == "0123456789, changed files"
    assert rows[2]["hardware"] == "A CPU, 2 cores, 8.0 GiB"
    assert content.versions(reports) == [("torch", "2.13.0")]


def test_a_student_learns_from_its_teacher_by_the_stage_distill(make_report):
    config = StudentConfig("hybrid", model=StudentModel(width=8), crd=CrdConfig(weight=0.5), kd=KdConfig())
    student = make_report(0, "small", {}, likelihood=False, student=config)
    assert [row["stage"] for row in content.stages([student])][2:4] == ["distill small", "embed small"]
    told = content.objective(student.settings)
    assert told.startswith("hybrid, its teacher: ")
    assert "(crd, weight 0.5) and " in told
    assert "regression" not in told
    shown = dict(content.settings(student.settings))
    assert (shown["teacher"], shown["model.width"], shown["crd.weight"]) == ("hybrid", "8", "0.5")
    assert not {"model.heads", "regression"} & set(shown)  # what is not given is the variants'


def test_records_of_older_versions_tell_less(make_report):
    old = make_report(0, "hybrid", {}, provenance=None)
    assert {row["commit"] for row in content.stages([old])} == {"not recorded"}
    assert content.versions([old]) == []


@pytest.mark.parametrize("value", [None, float("nan"), float("-inf")])
def test_no_number(value):
    assert content.shown(METRICS["linear_accuracy"], value) is None
