"""A study's results in a real MLflow, laid out as the pipeline's own."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from components.errors import UserError
from pipelines.study import importing
from pipelines.study.importing import import_study
from pipelines.study.members import Member
from pipelines.study.pack import pack

STAGES = {"pretrain", "embed", "probe", "ood"}


@pytest.fixture
def project(tmp_path, monkeypatch, empty_store) -> Path:
    """An empty project whose MLflow store exists."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "PIPELINE_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "project"
    (root / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, root / "mlruns" / "mlflow.db")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def fetched(finished, tmp_path) -> Path:
    """What came back from the other machine: parts with everything."""
    pack(finished, tmp_path / "fetched", 0.5, 99)
    return tmp_path / "fetched"


@pytest.fixture
def client(project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")


def runs_of(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("studies")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def models_of(client: MlflowClient) -> dict[str, Run]:
    return {run.data.tags["variant"]: run for run in runs_of(client) if run.data.tags.get("kind") == "model"}


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


def test_models_have_a_run_each_with_their_stages_under_it(finished, fetched, client):
    assert import_study(fetched) == 0
    models = models_of(client)
    assert set(models) == {"hybrid", "wide"}
    for name, run in models.items():
        member = Member.open(finished / "runs" / name / "seed-3")
        children = [r for r in runs_of(client) if r.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert {child.data.tags["stage"] for child in children} == STAGES
        assert {child.info.status for child in [run, *children]} == {"FINISHED"}
        assert run.data.metrics["linear_accuracy"] == round(member.results("probe")["linear_accuracy"], 4)
        assert {"score", "near_ood_auroc", "far_ood_auroc", "few_label_accuracy", "knn_accuracy"} <= set(
            run.data.metrics
        )
        assert run.data.metrics["ood/fused/near/auroc"] == member.results("ood")["fused/near/auroc"]
        curve = client.get_metric_history(run.info.run_id, "pretrain/contrastive_loss")
        assert [point.step for point in curve] == [5, 10, 15, 20]
        assert run.data.params["training.steps"] == "20"
        assert run.data.params["model.width"] == {"hybrid": "16", "wide": "24"}[name]
        assert run.data.tags["mlflow.runName"].startswith(f"{name} seed 3 20")
        assert {run.data.tags[f"stage.{stage}"] for stage in STAGES} == {"run"}
        assert {data.dataset.name for data in run.inputs.dataset_inputs} == {
            *("train", "val", "test", "ood-held-out", "ood-shuffled"),
        }
        figures = {
            Path(file.path).name
            for stage in ("pretrain", "probe", "ood")
            for file in client.list_artifacts(run.info.run_id, f"figures/{stage}")
        }
        expected = {"training.png", "confusion.png", "reliability.png", "few_label.png", "roc.png", "auroc.png"}
        assert figures == expected | {"scores.png"} | (
            {"samples.png", "completions.png"} if name == "hybrid" else set()
        )


def test_a_run_says_where_it_was_made(finished, fetched, client):
    import_study(fetched)
    run = models_of(client)["wide"]
    (start,) = (
        json.loads(path.read_text().splitlines()[0])
        for path in (finished / "runs/wide/seed-3/.tracking/journals").glob("*-pretrain-*/events.jsonl")
    )
    assert run.data.tags["study"] == "small"
    assert run.data.tags["study.run"] == start["key"]
    for tag in ("hardware", "hardware.cpu", "version.torch", "version.python", "mlflow.source.git.commit"):
        assert run.data.tags[tag] == start["tags"][tag]


def test_twice_is_once(fetched, client, capsys):
    import_study(fetched)
    before = everything(client)
    assert import_study(fetched) == 0
    assert everything(client) == before
    assert capsys.readouterr().out.count("already there") == 2


def test_fetched_again_is_not_imported_again(finished, fetched, client, tmp_path):
    import_study(fetched)
    before = everything(client)
    pack(finished, tmp_path / "again", 0.5, 99)
    import_study(tmp_path / "again")
    assert everything(client) == before


def test_while_mlflow_is_away_nothing_is_lost(fetched, client, monkeypatch, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(UserError, match=r"MLflow: .*cannot be reached"):
        import_study(fetched)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert import_study(fetched) == 0
    assert set(models_of(client)) == {"hybrid", "wide"}


@pytest.mark.parametrize("after", ["a stage is handed over", "a report is half written"])
def test_an_interrupted_import_is_repeated(fetched, client, monkeypatch, after):
    with monkeypatch.context() as patch:
        if after == "a stage is handed over":
            hand_over, calls = importing._hand_over, iter(range(99))

            def interrupted(*arguments: object) -> None:
                if next(calls) == 2:
                    raise KeyboardInterrupt
                hand_over(*arguments)

            patch.setattr(importing, "_hand_over", interrupted)
        else:
            from pipelines.stages import report

            def stopped(*arguments: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(report, "_log_curves", stopped)
        with pytest.raises(KeyboardInterrupt):
            import_study(fetched)
    assert import_study(fetched) == 0
    names = sorted(f"{r.data.tags.get('variant')} {r.data.tags['stage']}" for r in runs_of(client))
    assert names == sorted(f"{model} {stage}" for model in ("hybrid", "wide") for stage in (*STAGES, "report"))


def test_a_stage_whose_machine_went_just_after_its_results_counts_as_finished(finished, client, tmp_path):
    study = Path(shutil.copytree(finished, tmp_path / "small", symlinks=True))
    member = Member.open(study / "runs/wide/seed-3")
    key = json.loads((member.folder / "outputs/wide/probe/record.json").read_text())["run_key"]
    events = member.folder / ".tracking/journals" / key / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["event"] == "finish"
    events.write_text("".join(lines[:-1]) + lines[-1][:20])
    import_study(study)
    (run,) = (r for r in runs_of(client) if r.data.tags["gcrl.run_key"] == key)
    assert run.info.status == "FINISHED"
    assert run.info.end_time == int(1000 * _finished(member, "probe"))


def _finished(member: Member, stage: str) -> float:
    return float(json.loads((member.folder / f"outputs/{member.model}/{stage}/record.json").read_text())["finished"])


def test_with_weights_and_images_the_model_is_exported_here_and_checked(finished, tmp_path, project, client):
    pack(finished, tmp_path / "fetched", 0.5, 99)
    shutil.copytree(finished / "data/prepared", project / "data/prepared")
    before = (project / "data/prepared/dataset.json").read_bytes()
    shutil.rmtree(tmp_path / "fetched/runs/hybrid", ignore_errors=True)
    assert import_study(tmp_path / "fetched", register=True) == 0
    assert (project / "data/prepared/dataset.json").read_bytes() == before
    run = models_of(client)["wide"]
    assert run.data.metrics["export/parity/embedding"] < 1e-3
    assert run.data.metrics["latency_ms"] > 0
    versions = client.search_model_versions("name = 'studied'")
    assert {version.tags["variant"] for version in versions} == {"hybrid", "wide"}
    assert {version.run_id for version in versions} == {model.info.run_id for model in models_of(client).values()}


def test_without_the_scores_their_figures_are_left_out_by_name(finished, tmp_path, client, capsys):
    pack(finished, tmp_path / "fetched", 0.35, 2)
    import_study(tmp_path / "fetched")
    assert "figures of ood left out: " in capsys.readouterr().out
    run = models_of(client)["wide"]
    names = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "figures/ood")}
    assert names == {"auroc.png", "robustness.png", "map.png"}
    assert client.list_artifacts(run.info.run_id, "figures/probe")


def test_a_folder_without_a_study_is_told(tmp_path, project):
    with pytest.raises(UserError, match=r"no model there whose stages pretrain, embed, probe, ood have run"):
        import_study(tmp_path)
