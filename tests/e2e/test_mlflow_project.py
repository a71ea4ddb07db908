"""`mlflow run mlflow -P preset=…` in a checkout: no flag, no environment of MLflow's making."""

import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

PROJECT = Path(__file__).parents[2] / "mlflow"


@pytest.fixture
def checkout(scratch) -> Any:
    """The finished project with mlflow/MLproject and two presets: what has run, and the same with another gate."""
    shutil.copytree(PROJECT, scratch.root / "mlflow")
    shutil.copyfile(scratch.root / "params.yaml", scratch.root / "presets" / "done.yaml")
    scratch.edit({"gate.minimum": {"linear_accuracy": 0.01}})
    (scratch.root / "params.yaml").rename(scratch.root / "presets" / "tiny.yaml")
    shutil.copyfile(scratch.root / "presets" / "done.yaml", scratch.root / "params.yaml")
    return scratch


def project_runs(uri: str) -> list[Any]:
    """What `mlflow run` itself has recorded."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, "tags.`mlflow.source.type` = 'PROJECT'"))


def test_a_preset_runs_and_its_runs_name_the_project_run(checkout):
    from mlflow import MlflowClient

    done = checkout.run("mlflow", "run", "mlflow", "-P", "preset=tiny")
    assert "params.yaml is preset tiny now" in done.stdout
    assert "# Comparison" in done.stdout
    [project] = project_runs(f"sqlite:///{checkout.root / 'mlflow.db'}")  # MLflow's default store
    assert project.info.status == "FINISHED"
    assert project.data.params == {"preset": "tiny", "target": "compare"}
    assert not project.data.metrics  # nothing of ours was logged into it
    client = MlflowClient(checkout.uri)  # ours are where they always are
    experiment = client.get_experiment_by_name("throw-away").experiment_id
    [compare] = client.search_runs([experiment], f"tags.project_run = '{project.info.run_id}'")
    assert compare.data.tags["stage"] == "compare"
    assert compare.data.tags["gate"] == "every condition is met"


def test_a_mistake_fails_with_its_message(checkout):
    command = ("mlflow", "run", "mlflow", "--experiment-name", "throw-away", "-P", "preset=tinny")
    done = checkout.run(*command, code=1, MLFLOW_TRACKING_URI=checkout.uri)
    assert "error: unknown preset 'tinny', did you mean 'tiny'" in done.stderr
    assert "Traceback" not in done.stderr
    [project] = project_runs(checkout.uri)  # in the same store as all others
    assert project.info.status == "FAILED"
