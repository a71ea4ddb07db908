"""A certificate is a stage of those variants alone that params.yaml asks one for."""

import json

import pytest

pytestmark = pytest.mark.e2e


def test_a_variant_asks_for_a_certificate(scratch):
    assert "certificate" not in scratch.dvc("stage", "list", "--name-only").stdout
    scratch.edit({"certificate": {"contrastive": {"draws": 200, "views": 2}}})
    said = scratch.dvc("repro", "certificate").stdout
    assert "certificate: " in said
    assert "tuples of val" in said
    folder = scratch.root / "outputs/contrastive/certificate"
    assert {file.name for file in folder.iterdir()} == {"results.json", "record.json", "certificate.png"}
    results = json.loads((folder / "results.json").read_text())
    assert 0 < results["metrics"]["bound"] <= 1
    assert results["constants"]["draws"] == 200
    assert not (scratch.root / "outputs/hybrid/certificate").exists()

    from mlflow import MlflowClient

    client = MlflowClient(scratch.uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "throw-away")
    (run,) = client.search_runs([experiment.experiment_id], "tags.stage = 'certificate'")
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert (parent.data.tags["kind"], parent.data.tags["variant"]) == ("model", "contrastive")
    assert run.data.metrics["bound"] == results["metrics"]["bound"]

    report = scratch.files("outputs/reports")
    scratch.dvc("repro", "--single-item", "--force", "report@contrastive")  # of the same stages: the same run
    assert scratch.files("outputs/reports") != report
    assert "didn't change, skipping" in scratch.dvc("repro", "--single-item", "certificate@contrastive").stdout
    scratch.edit({"certificate": None})
    assert "certificate" not in scratch.dvc("stage", "list", "--name-only").stdout
