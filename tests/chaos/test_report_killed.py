"""`report` and what it waits for, killed at any moment and run again: one finished row a model, one version a file."""

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tests.e2e.conftest import Project

pytestmark = pytest.mark.chaos

# A process of the real command that kills itself where one call would begin, or after it.
KILLED = """
import importlib, os, signal, sys
place, name, when, target, *arguments = sys.argv[1:]
module, _, owner = place.partition(":")
owner = getattr(importlib.import_module(module), owner) if owner else importlib.import_module(module)
original = getattr(owner, name)

def patched(*given, **options):
    if target and not any(target in str(one) for one in given):
        return original(*given, **options)
    if when == "after":
        original(*given, **options)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, patched)
from pipelines.stages.__main__ import main
main(arguments)
"""
REPORT = ("report", "--variant", "hybrid")
MOMENTS = {
    "written, not renamed": ("pathlib:Path", "replace", "before", "outputs/reports/hybrid"),
    "renamed, the journal open": ("pipelines.tracking:Journal", "nest", "before", ""),
    "finished, nothing sent": ("pipelines.stages.report", "deliver", "before", ""),
    "the run half sent": ("mlflow:MlflowClient", "log_artifact", "after", ""),
    "the version made, the run not finished": ("mlflow:MlflowClient", "create_model_version", "after", ""),
    "the run finished, the journal there": ("mlflow:MlflowClient", "set_terminated", "after", ""),
    "all sent, DVC has not heard of it": ("pipelines.stages.report", "deliver", "after", ""),
}


@pytest.fixture(scope="module")
def project(small: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small.copy(tmp_path_factory.mktemp("killed") / "project")


@pytest.fixture
def client(project: Project) -> MlflowClient:
    return MlflowClient(project.uri, project.uri)


@pytest.fixture
def killed(project: Project) -> Callable[..., None]:
    """`killed(MOMENT, STAGE, …)` runs a stage as DVC does until it kills itself."""

    def run(moment: tuple[str, str, str, str], *stage: str) -> None:
        _remove_outputs(project, stage)
        project.run(sys.executable, "-c", KILLED, *moment, *stage, code=-signal.SIGKILL)

    return run


@pytest.fixture
def again(project: Project) -> Callable[..., None]:
    """`again(STAGE, …)` runs a stage as DVC does."""

    def run(*stage: str) -> None:
        _remove_outputs(project, stage)
        project.python("pipelines.stages", *stage)

    return run


def _remove_outputs(project: Project, stage: tuple[str, ...]) -> None:
    name, variant = stage[0], stage[2] if len(stage) > 1 else ""
    place = Path("reports", variant) if name == "report" else Path(variant, name)
    shutil.rmtree(project.root / "outputs" / place, ignore_errors=True)


def runs_of(client: MlflowClient, **tags: str) -> list[Run]:
    experiment = client.get_experiment_by_name("throw-away")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return [run for run in found if tags.items() <= run.data.tags.items()]


def doubled_points(client: MlflowClient, run: Run) -> dict[str, list[int]]:
    steps = {name: [m.step for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}
    return {name: found for name, found in steps.items() if len(found) != len(set(found))}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_report_is_one_run_and_one_version(
    moment: str, project: Project, client: MlflowClient, killed: Any, again: Any
) -> None:
    name = f"killed-{list(MOMENTS).index(moment)}"
    project.edit({"tracking.experiment": name, "tracking.registered_model": name})
    killed(MOMENTS[moment], *REPORT)
    again(*REPORT)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.data.tags["kind"], run.info.status) == ("model", "FINISHED")
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert version.run_id == run.info.run_id
    assert len(run.outputs.model_outputs) == 1
    assert doubled_points(client, run) == {}
    assert not list((project.root / ".tracking/journals").iterdir())
    again("compare")
    (comparison,) = (r for r in client.search_runs([experiment.experiment_id]) if r.data.tags["stage"] == "compare")
    assert comparison.data.tags["promotion"] == "the gate passed and there was no champion"
    assert client.get_registered_model(name).aliases == {"champion": version.version, "challenger": version.version}
    _leave(project)


def _leave(project: Project) -> None:
    project.edit({"tracking.experiment": "throw-away", "tracking.registered_model": "gcrl"})


def test_a_killed_comparison_is_one_run_that_moves_the_champion_once(
    project: Project, client: MlflowClient, killed: Any, again: Any
) -> None:
    name = "compared"
    project.edit({"tracking.experiment": name, "tracking.registered_model": name})
    again(*REPORT)
    killed(("pipelines.stages.compare", "deliver", "after", ""), "compare")
    again("compare")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted((run.data.tags["stage"], run.info.status) for run in runs) == [
        ("compare", "FINISHED"),
        ("report", "FINISHED"),
    ]
    assert {run.data.tags.get("promotion") for run in runs} == {None, "the gate passed and there was no champion"}
    assert client.get_registered_model(name).tags["champions"] == "1"
    assert [doubled_points(client, run) for run in runs] == [{}, {}]
    _leave(project)


def test_attempts_at_a_stage_are_nested_under_the_model(
    project: Project, client: MlflowClient, killed: Any, again: Any
) -> None:
    """One was killed, one finished without DVC keeping it."""
    before = {run.info.run_id for run in runs_of(client)}
    stage = ("embed", "--variant", "hybrid")
    killed(("pathlib:Path", "replace", "before", "outputs/hybrid/embed"), *stage)
    again(*stage)
    again(*stage)
    again(*REPORT)
    runs = {run.info.run_id: run for run in runs_of(client)}
    new = {run_id: run for run_id, run in runs.items() if run_id not in before}
    assert sorted((run.data.tags["stage"], run.info.status) for run in new.values()) == [
        ("embed", "FINISHED"),
        ("embed", "FINISHED"),
        ("embed", "KILLED"),
        ("report", "FINISHED"),
    ]
    for run in new.values():
        root = run
        while parent := root.data.tags.get("mlflow.parentRunId"):
            root = runs[parent]
        assert (root.info.run_id in new, root.data.tags.get("kind")) == (True, "model")


def test_the_same_file_reported_anew_is_the_same_version(project: Project, client: MlflowClient, again: Any) -> None:
    name = "same-file"
    project.edit({"tracking.registered_model": name, "gate.score": ["linear_accuracy"]})
    again(*REPORT)
    project.edit({"gate.score": ["knn_accuracy"]})
    again(*REPORT)
    again("compare")
    (version,) = client.search_model_versions(f"name = '{name}'")
    models = runs_of(client, kind="model", onnx_sha256=version.tags["onnx_sha256"])
    assert len({run.data.metrics["score"] for run in models}) > 1  # rows of their own
    comparison = runs_of(client, stage="compare")[0]
    assert comparison.data.tags["promotion"] == "the gate passed and there was no champion"
    with pytest.raises(MlflowException):
        client.get_model_version(name, "2")
    _leave(project)


EXPECTATION = 'Check("ExpectColumnMinToBeBetween", "entropy is none below 0", {"column": "entropy", "min_value": 0})'


def test_another_expectation_makes_no_other_model(project: Project, client: MlflowClient) -> None:
    project.dvc("repro")  # whatever the other tests left is settled
    before, reports = {r.info.run_id for r in runs_of(client, kind="model")}, project.files("outputs/reports")
    versions = len(client.search_model_versions("name = 'gcrl'"))
    code = project.root / "pipelines" / "validation" / "prepared_data.py"
    place = "    for split in prepared.splits:\n        yield _label_check"
    assert place in code.read_text()
    code.write_text(code.read_text().replace(place, f"    yield {EXPECTATION}\n{place}"))
    project.dvc("repro")
    assert {r.info.run_id for r in runs_of(client, kind="model")} == before
    assert project.files("outputs/reports") == reports
    assert len(client.search_model_versions("name = 'gcrl'")) == versions
    summary = (project.root / "data/validation/summary.md").read_text()
    assert "entropy is none below 0" in summary
