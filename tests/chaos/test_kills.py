"""Each stage is killed at its beginning, at its first file, before its results get their name, and after its end."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.chaos.conftest import SMALL, leftovers, numbers, processes_in
from tests.e2e.conftest import Project, new_project

pytestmark = pytest.mark.chaos

RESULTS = {
    "prepare": "data/prepared",
    "validate": "data/validation",
    "baselines": "outputs/baselines",
    "pretrain": "outputs/hybrid/pretrain",
    "embed": "outputs/hybrid/embed",
    "probe": "outputs/hybrid/probe",
    "ood": "outputs/hybrid/ood",
    "export": "outputs/hybrid/export",
    "report": "outputs/reports/hybrid",
    "compare": "outputs/compare",
}
MOMENTS = ("begin", "write", "rename", "end")  # the last: all is written, and DVC has not heard of it
# Python runs a module of this name at its start. In the stage that KILL names it sends SIGKILL to its own process, and
# leaves a mark, so that a moment that never comes is noticed.
INJECTION = """
import importlib, json, os, pathlib, signal, sys

stage, moment, results, mark = json.loads(os.environ["KILL"])
if "pipelines.stages" in sys.orig_argv and stage in sys.orig_argv and "-c" not in sys.orig_argv:

    def kill_in(owner, name, condition=lambda *given: True):
        original = getattr(owner, name)

        def patched(*given, **options):
            if condition(*given):
                pathlib.Path(mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **options)

        setattr(owner, name, patched)

    if moment == "begin":
        kill_in(importlib, "import_module", lambda module, *_: module == f"pipelines.stages.{stage}")
    elif moment == "write":
        kill_in(os, "fsync")
    elif moment == "rename":
        kill_in(pathlib.Path, "replace", lambda _, target: os.path.abspath(target) == results)
    else:
        kill_in(os, "_exit")
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """As it comes out of `git clone`."""
    return new_project(tmp_path / "project", SMALL)


def test_whatever_is_killed_nothing_is_lost_and_nothing_doubled(
    project: Project, small: Project, tmp_path: Path
) -> None:
    (tmp_path / "injection").mkdir()
    (tmp_path / "injection" / "sitecustomize.py").write_text(INJECTION)
    for stage, results in RESULTS.items():
        for moment in MOMENTS:
            mark = tmp_path / f"{stage}-{moment}"
            order = json.dumps([stage, moment, str(project.root / results), str(mark)])
            done = project.python(
                "pipelines",
                "repro",
                code=None,
                PYTHONPATH=str(tmp_path / "injection"),
                KILL=order,
                PYTHONUNBUFFERED="1",
            )
            assert mark.exists(), f"{stage} was not killed at its {moment}:\n{done.stdout}{done.stderr}"
            assert done.returncode == 1
            assert "Traceback" not in done.stdout + done.stderr
    done = project.python("pipelines", "repro")
    assert "Traceback" not in done.stdout + done.stderr
    assert numbers(project) == numbers(small)
    assert processes_in(project) == []
    assert leftovers(project) == []
    assert list((project.root / ".tracking" / "journals").iterdir()) == []

    client = MlflowClient(project.uri, project.uri)
    experiment = client.get_experiment_by_name("throw-away")
    assert experiment is not None
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} <= {"FINISHED", "KILLED"}
    alone = [run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(run.data.tags["stage"] for run in alone) == ["compare", "report"]
    assert [run.data.tags["stage"] for run in runs.values() if run.data.tags.get("kind") == "model"] == ["report"]
    (version,) = client.search_model_versions("name = 'gcrl'")
    assert client.get_registered_model("gcrl").aliases == {"challenger": version.version, "champion": version.version}
