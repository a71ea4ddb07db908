"""A study's results in a real MLflow, laid out as the pipeline's own."""

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from components.errors import UserError
from pipelines.experiments import importing
from pipelines.experiments.importing import import_study
from pipelines.experiments.members import Member
from pipelines.experiments.pack import pack
from pipelines.experiments.received import CARRIED
from pipelines.stages import report
from pipelines.tracking import Journal, deliver
from pipelines.tracking.provenance import user

STAGES = set(CARRIED)


@dataclass(frozen=True)
class Project:
    """A project with an MLflow store and images, and what came back from the other machine."""

    root: Path
    fetched: Path

    @property
    def client(self) -> MlflowClient:
        store = f"sqlite:///{self.root}/mlruns/mlflow.db"
        return MlflowClient(store, store)


def new_project(folder: Path, empty_store: Path) -> Project:
    (folder / "project/mlruns").mkdir(parents=True)
    shutil.copy(empty_store, folder / "project/mlruns/mlflow.db")
    return Project(folder / "project", folder / "fetched")


@contextmanager
def at(root: Path) -> Iterator[pytest.MonkeyPatch]:
    """In a project's folder, with nothing in the environment that leads elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "PIPELINE_TRACKING"):
            patch.delenv(name, raising=False)
        patch.chdir(root)
        yield patch


@pytest.fixture(scope="module")
def imported(finished, empty_store, tmp_path_factory) -> Project:
    """A project that has imported the whole study; it has the images, too. Not to be changed."""
    project = new_project(tmp_path_factory.mktemp("imported"), empty_store)
    shutil.copytree(finished / "data/prepared", project.root / "data/prepared")
    pack(finished, project.fetched, 16, 8)
    with at(project.root) as patch:
        patch.setattr("components.export.parity.TIMED_SECONDS", 0.01)
        assert import_study(project.fetched, register=True) == 0
    return project


@pytest.fixture
def fresh(imported, empty_store, tmp_path) -> Iterator[Project]:
    """A project that has imported nothing yet and has no images, its folder being the present one; of the study one
    model came back."""
    project = new_project(tmp_path, empty_store)
    member = Path("runs/wide/seed-3")
    shutil.copytree(imported.fetched / member, project.fetched / member)
    with at(project.root):
        yield project


def runs_of(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("studies")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def models_of(client: MlflowClient) -> dict[str, Run]:
    return {run.data.tags["variant"]: run for run in runs_of(client) if run.data.tags.get("kind") == "model"}


def artifacts(client: MlflowClient, run: Run, folder: str) -> list[str]:
    """Every file below a folder of a run's artifacts."""
    found = client.list_artifacts(run.info.run_id, folder)
    below = [path for entry in found if entry.is_dir for path in artifacts(client, run, entry.path)]
    return below + [entry.path for entry in found if not entry.is_dir]


def everything(client: MlflowClient) -> dict[str, tuple]:
    """All that MLflow knows of each run."""
    return {
        run.info.run_id: (
            run.info.status,
            run.data.params,
            run.data.tags,
            {name: len(client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics},
        )
        for run in runs_of(client)
    }


def test_models_have_a_run_each_with_their_stages_under_it(finished, imported):
    client = imported.client
    models = models_of(client)
    assert set(models) == {"hybrid", "wide"}
    for name, run in models.items():
        member = Member.open(finished / "runs" / name / "seed-3")
        children = [r for r in runs_of(client) if r.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert {child.data.tags["stage"] for child in children} == {*STAGES, "export"}
        assert {child.info.status for child in [run, *children]} == {"FINISHED"}
        assert run.data.metrics["linear_accuracy"] == round(member.results("probe")["linear_accuracy"], 4)
        assert {"score", "near_ood_auroc", "far_ood_auroc", "few_label_accuracy"} <= set(run.data.metrics)
        assert run.data.metrics["ood/fused/near/auroc"] == member.results("ood")["fused/near/auroc"]
        curve = client.get_metric_history(run.info.run_id, "pretrain/contrastive_loss")
        assert [point.step for point in curve] == [5, 10, 15, 20]
        assert run.data.params["training.steps"] == "20"
        assert run.data.params["model.width"] == {"hybrid": "16", "wide": "24"}[name]
        assert run.data.tags["mlflow.runName"].startswith(f"{name} seed 3 20")
        assert {run.data.tags[f"stage.{stage}"] for stage in STAGES} == {"run"}
        sets = {data.dataset.name for data in run.inputs.dataset_inputs}
        assert sets == {"train", "val", "test", "ood-held-out", "ood-shuffled"}


def test_figures_that_were_not_drawn_there_are_drawn_here(imported):
    common = {"training.png", "confusion.png", "reliability.png", "few_label.png", "layers.png"}
    common |= {"roc.png", "auroc.png", "scores.png", "robustness.png", "map.png"}
    drawn = {"hybrid": common | {"samples.png", "completions.png"}, "wide": common}
    for name, run in models_of(imported.client).items():
        assert {Path(path).name for path in artifacts(imported.client, run, "figures")} == drawn[name]


def test_a_run_says_where_it_was_made(finished, imported):
    run = models_of(imported.client)["wide"]
    (journal,) = (finished / "runs/wide/seed-3/.tracking/journals").glob("*-pretrain-*/events.jsonl")
    start = json.loads(journal.read_text().splitlines()[0])
    assert run.data.tags["study"] == "small"
    assert run.data.tags["study.run"] == start["key"]
    for tag in ("hardware", "hardware.cpu", "version.torch", "version.python", "mlflow.source.git.commit"):
        assert run.data.tags[tag] == start["tags"][tag]


def test_with_weights_and_images_the_model_is_exported_here_and_checked(imported):
    models = models_of(imported.client)
    assert all(run.data.metrics["export/parity/embedding"] < 1e-3 for run in models.values())
    assert all(run.data.metrics["latency_ms"] > 0 for run in models.values())
    versions = imported.client.search_model_versions("name = 'studied'")
    assert {version.run_id for version in versions} == {run.info.run_id for run in models.values()}
    commit = models["wide"].data.tags["mlflow.source.git.commit"]
    assert {version.tags["git.commit"] for version in versions} == {commit}


def test_twice_is_once_and_so_is_fetched_again(finished, imported, tmp_path, capsys):
    before = everything(imported.client)
    with at(imported.root):
        assert import_study(imported.fetched) == 0
        pack(finished, tmp_path / "again", 16, 8)
        assert import_study(tmp_path / "again") == 0
    assert everything(imported.client) == before
    assert capsys.readouterr().out.count("already there") == 4


def test_while_mlflow_is_away_nothing_is_lost(fresh):
    with at(fresh.root) as patch, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(UserError, match=r"MLflow: .*cannot be reached"):
            import_study(fresh.fetched)
    assert import_study(fresh.fetched) == 0
    assert set(models_of(fresh.client)) == {"wide"}


@pytest.mark.parametrize("after", ["a stage is handed over", "a report is half written"])
def test_an_interrupted_import_is_repeated(fresh, after):
    calls, write = iter(range(99)), importing._write

    def interrupted(*arguments: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    def stopped(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with at(fresh.root) as patch:
        if after == "a stage is handed over":
            patch.setattr(importing, "_write", interrupted)
        else:
            patch.setattr(report, "_log_curves", stopped)
        with pytest.raises(KeyboardInterrupt):
            import_study(fresh.fetched)
    assert import_study(fresh.fetched) == 0
    assert sorted(run.data.tags["stage"] for run in runs_of(fresh.client)) == sorted([*STAGES, "report"])
    assert {run.info.status for run in runs_of(fresh.client)} == {"FINISHED"}


def test_a_stage_whose_machine_went_just_after_its_results_counts_as_finished(fresh):
    member = Member.open(fresh.fetched / "runs/wide/seed-3")
    record = json.loads((member.folder / "outputs/wide/probe/record.json").read_text())
    events = member.folder / ".tracking/journals" / record["run_key"] / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["event"] == "finish"
    events.write_text("".join(lines[:-1]) + lines[-1][:20])
    import_study(fresh.fetched)
    (run,) = (r for r in runs_of(fresh.client) if r.data.tags["gcrl.run_key"] == record["run_key"])
    assert (run.info.status, run.info.end_time) == ("FINISHED", int(1000 * record["finished"]))


def test_without_weights_scores_and_images_what_is_left_out_is_told(fresh, capsys):
    member = fresh.fetched / "runs/wide/seed-3"
    (member / "outputs/wide/pretrain/model.safetensors").unlink()
    (member / "outputs/wide/ood/scores.parquet").unlink()
    import_study(fresh.fetched)
    told = capsys.readouterr().out
    assert "figures of ood left out: scores.parquet is not here" in told
    assert "not exported: model.safetensors" in told
    run = models_of(fresh.client)["wide"]
    names = {Path(path).name for path in artifacts(fresh.client, run, "figures/ood")}
    assert names == {"auroc.png", "robustness.png", "map.png"}
    assert "latency_ms" not in run.data.metrics


def test_a_folder_without_a_study_is_told(fresh, tmp_path):
    with pytest.raises(UserError, match=r"no model there whose stages pretrain, embed, probe, ood have run"):
        import_study(tmp_path)


def carried(project: Project, stage: str) -> Path:
    """A stage's journal, in what came back."""
    (journal,) = (project.fetched / "runs/wide/seed-3/.tracking/journals").glob(f"*-{stage}-*")
    return journal


def test_a_run_of_the_project_is_never_overwritten_by_one_of_the_same_key(fresh):
    journal = carried(fresh, "probe")
    shutil.copytree(journal, fresh.root / ".tracking/journals" / journal.name)  # as if it had run here
    assert deliver(root=fresh.root / ".tracking").sent
    before = everything(fresh.client)
    with pytest.raises(UserError, match=f"the study has a run {journal.name}, and so has this project"):
        import_study(fresh.fetched)
    assert everything(fresh.client) == before
    assert list((fresh.root / ".tracking/journals").iterdir()) == []


def test_where_a_delivery_stands_is_not_taken_from_an_archive(fresh):
    with Journal.start("compare", root=fresh.root / ".tracking", experiment="studies") as own:
        pass
    run_id = deliver(root=fresh.root / ".tracking").sent[own.key]
    before = everything(fresh.client)[run_id]
    cursor = {"uri": f"sqlite:///{fresh.root}/mlruns/mlflow.db", "run_id": run_id, "offset": 0}
    (carried(fresh, "probe") / "cursor.json").write_text(json.dumps(cursor))
    assert import_study(fresh.fetched) == 0
    assert everything(fresh.client)[run_id] == before


def test_an_imported_run_belongs_to_whoever_imports_it_and_says_that_it_came_from_a_study(fresh):
    events = carried(fresh, "probe") / "events.jsonl"
    start, *others = events.read_text().splitlines()
    fields = json.loads(start)
    fields["tags"]["mlflow.user"] = "somebody else"
    events.write_text("\n".join([json.dumps(fields), *others]) + "\n")
    assert import_study(fresh.fetched) == 0
    assert {run.data.tags["mlflow.user"] for run in runs_of(fresh.client)} == {user()}
    assert {run.data.tags["study.run"] for run in runs_of(fresh.client)} == {carried(fresh, "pretrain").name}


def test_an_exported_model_or_a_report_that_came_along_is_not_used(imported, fresh):
    outputs = fresh.fetched / "runs/wide/seed-3/outputs"
    shutil.copytree(outputs / "wide/probe", outputs / "wide/export")
    shutil.copytree(outputs / "wide/probe", outputs / "reports/wide")
    (outputs / "wide/export/model.onnx").write_bytes(b"somebody's")
    assert import_study(fresh.fetched, register=True) == 0
    assert sorted(run.data.tags["stage"] for run in runs_of(fresh.client)) == sorted([*STAGES, "report"])
    assert fresh.client.search_model_versions("name = 'studied'") == []
