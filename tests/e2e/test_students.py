"""A student goes through the DAG like a variant, from its teacher's weights to the comparison."""

import json

import pytest

from pipelines.stages.registry import all_stages

pytestmark = pytest.mark.e2e

STAGES = tuple(name for name, stage in all_stages().items() if stage.per == "encoder")
STUDENT = {
    "teacher": "hybrid",
    "model": {"width": 8},
    "training": {"steps": 10},
    "crd": {"embedding_size": 8},
    "kd": {},
}


def test_a_student_is_trained_evaluated_exported_and_compared(scratch):
    scratch.edit({"students.small": STUDENT})
    done = scratch.dvc("repro")
    ran = {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")}
    assert ran == {"sources", "distill@small", *(f"{stage}-student@small" for stage in STAGES), "compare"}
    assert "detector nll left out" in done.stdout

    out = scratch.root / "outputs" / "small"
    constants = {
        name: json.loads((scratch.root / f"outputs/{name}/pretrain/results.json").read_text())["constants"]
        for name in ("small", "hybrid")
    }
    assert constants["small"]["teacher"] == "hybrid"
    assert constants["small"]["teacher_parameters"] == constants["hybrid"]["parameters"]
    assert constants["small"]["parameters"] < constants["hybrid"]["parameters"]
    images = json.loads((scratch.root / "outputs/prepare/results.json").read_text())["metrics"]["images/train"]
    assert constants["small"]["crd_negatives"] == images - 1  # 16,384 were asked for
    assert (out / "export" / "model.onnx").stat().st_size > 0
    assert "0.8 · crd + 1 · kd, with hybrid as its teacher" in (out / "export" / "card.md").read_text()
    page = (scratch.root / "outputs/compare/comparison.md").read_text()
    assert f"| small (hybrid's student, {constants['small']['parameters']:,} parameters) |" in page
    assert (
        page.index("## Students beside their teachers")
        < page.index("| hybrid | (teacher) |")
        < page.index("| small | 0.8")
    )

    scratch.edit({"students": {}})
    done = scratch.dvc("repro")
    assert "Running stage 'compare'" in done.stdout
    assert "small" not in (scratch.root / "outputs/compare/comparison.md").read_text()
