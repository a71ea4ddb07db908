"""A real `dvc exp run` with a changed probe parameter while MLflow's server is away, and the delivery afterwards."""

import json
import socket
from dataclasses import dataclass
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Experiment:
    """The finished project with one variant left, after `dvc exp run -S probe.draws=2`."""

    project: Any
    said: str
    warnings: str
    before: dict[str, str]  # files and their hashes

    @property
    def ran(self) -> set[str]:
        lines = [line for line in self.said.splitlines() if line.startswith("Running stage")]
        return {line.split("'")[1] for line in lines}


@pytest.fixture(scope="module")
def experiment(finished, tmp_path_factory) -> Experiment:
    project = finished.copy(tmp_path_factory.mktemp("experiment") / "project")
    project.edit({"variants.contrastive": None})
    project.commit()
    before = project.files()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        away = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = project.dvc("exp", "run", "-n", "two-draws", "-S", "probe.draws=2", MLFLOW_TRACKING_URI=away)
    return Experiment(project, done.stdout, done.stderr, before)


@pytest.fixture(scope="module")
def delivered(experiment) -> str:
    """What `sync` says once the store can be reached."""
    return experiment.project.python("pipelines", "tracking", "sync").stdout


def test_only_what_depends_on_probes_runs(experiment):
    assert {"baselines", "probe@hybrid", "export@hybrid", "report@hybrid", "compare"} <= experiment.ran
    others = {"ood@hybrid", "sources"}  # the latter always runs, and keeps no journal
    assert experiment.ran <= {"baselines", "probe@hybrid", "export@hybrid", "report@hybrid", "compare"} | others
    after = experiment.project.files()
    for stage in ("pretrain", "embed"):
        kept = {path: value for path, value in after.items() if path.startswith(f"outputs/hybrid/{stage}/")}
        assert kept == {path: experiment.before[path] for path in kept}
    probe = json.loads((experiment.project.root / "outputs/hybrid/probe/results.json").read_text())
    assert probe["constants"]["draws"] == 2


def test_detectors_run_only_where_the_probe_is_another(experiment):
    """More draws of few labels leave the linear probe as it is: DVC finds the same probe.npz."""
    path = "outputs/hybrid/probe/probe.npz"
    assert experiment.project.files()[path] == experiment.before[path]
    assert "ood@hybrid" not in experiment.ran


def test_the_experiment_is_listed(experiment):
    listed = experiment.project.dvc("exp", "show", "--csv").stdout.splitlines()
    names = listed[0].split(",")
    row = next(line for line in listed if line.startswith("two-draws,") or ",two-draws," in line)
    assert "probe.draws" in names
    assert "hybrid.linear_accuracy" in ",".join(names)
    assert "two-draws" in row
    changed = json.loads(experiment.project.dvc("params", "diff", "--json").stdout)
    assert changed == {"params.yaml": {"probe.draws": {"old": 1, "new": 2, "diff": 1}}}


def test_a_missing_server_stops_nothing_and_is_told_in_a_line_a_stage(experiment):
    told = [line for line in experiment.warnings.splitlines() if line.startswith("MLflow:")]
    assert len(told) == 2  # report and compare deliver
    assert all("cannot be reached" in line and "Nothing is lost" in line and "make sync" in line for line in told)
    assert "Traceback" not in experiment.warnings
    assert "The champion is decided once MLflow can be reached: run `make sync`." in experiment.said


def test_sync_sends_it_all_later(experiment, delivered):
    assert f"{len(experiment.ran - {'sources'})} sent to sqlite:" in delivered
    assert "0 pending" in delivered
    assert list((experiment.project.root / ".tracking/journals").iterdir()) == []
    assert "0 sent" in experiment.project.python("pipelines", "tracking", "sync").stdout


def test_the_new_model_run_says_what_was_cached(experiment, delivered):
    from mlflow import MlflowClient

    uri = experiment.project.uri
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    models = client.search_runs(ids, "tags.kind = 'model' AND tags.variant = 'hybrid'", order_by=["start_time ASC"])
    assert len(models) == 2
    first, second = models
    stages = {
        stage: second.data.tags[f"stage.{stage}"] for stage in ("pretrain", "embed", "probe", "export", "baselines")
    }
    assert stages == {"pretrain": "cached", "embed": "cached", "probe": "run", "export": "run", "baselines": "run"}
    # carried over, with a link to the run that made them
    assert second.data.metrics["pretrain/nll_nats_per_token"] == first.data.metrics["pretrain/nll_nats_per_token"]
    cached = client.get_run(second.data.tags["gcrl.reused.pretrain"])
    assert cached.data.tags["mlflow.parentRunId"] == first.info.run_id
    nested = client.search_runs(ids, f"tags.mlflow.parentRunId = '{second.info.run_id}'")
    assert {run.data.tags["stage"] for run in nested} == {"baselines", "probe", "export"}


def test_the_same_file_is_the_version_that_it_was_and_challenges(experiment, delivered):
    from mlflow import MlflowClient

    uri = experiment.project.uri
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (before,) = [v for v in client.search_model_versions("name = 'gcrl'") if v.tags["variant"] == "hybrid"]
    assert client.get_model_version_by_alias("gcrl", "challenger").version == before.version
    assert len(list((experiment.project.root / ".tracking/promotions").iterdir())) == 2
