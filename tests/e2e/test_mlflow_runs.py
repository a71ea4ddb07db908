"""What a `dvc repro` leaves in MLflow's store, asked of MLflow itself."""

import json
from typing import Any

import numpy as np
import pytest

from components.plotting.style import variant_colours
from pipelines.stages.registry import reported

pytestmark = pytest.mark.e2e

VARIANTS = ("hybrid", "contrastive")
STAGES = reported()
SHARED = (*reported(shared=True), "validate")


@pytest.fixture(scope="module")
def client(finished) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=finished.uri, registry_uri=finished.uri)


@pytest.fixture(scope="module")
def runs(client) -> dict[str, Any]:
    """Every run, by what it ran: `report-hybrid`, `prepare` …"""
    experiment = client.get_experiment_by_name("throw-away")
    found = client.search_runs([experiment.experiment_id])
    named = {"-".join(filter(None, (r.data.tags["stage"], r.data.tags.get("variant")))): r for r in found}
    assert len(named) == len(found)
    return named


def artifacts(client, run, folder: str = "") -> set[str]:
    found = client.list_artifacts(run.info.run_id, folder)
    return {f.path for f in found if not f.is_dir}.union(*(artifacts(client, run, f.path) for f in found if f.is_dir))


def test_every_stage_has_a_finished_run(runs):
    expected = {f"{stage}-{variant}" for stage in (*STAGES, "report") for variant in VARIANTS}
    assert set(runs) == expected | {*SHARED, "compare"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_stage_runs_are_nested_under_their_model(runs):
    for variant in VARIANTS:
        model = runs[f"report-{variant}"]
        assert "mlflow.parentRunId" not in model.data.tags
        assert model.data.tags["kind"] == "model"
        for stage in STAGES:
            assert runs[f"{stage}-{variant}"].data.tags["mlflow.parentRunId"] == model.info.run_id
            assert model.data.tags[f"stage.{stage}"] == "run"
    # what is shared lies under the first model; the other one points there
    first, second = sorted((runs[f"report-{variant}"] for variant in VARIANTS), key=lambda run: run.info.start_time)
    for stage in SHARED:
        assert runs[stage].data.tags["mlflow.parentRunId"] == first.info.run_id
        assert second.data.tags[f"gcrl.reused.{stage}"] == runs[stage].info.run_id


def test_the_runs_of_a_variant_have_its_colour(runs):
    for run in runs.values():
        variant = run.data.tags.get("variant")
        assert run.data.tags.get("mlflow.runColor") == (variant_colours(VARIANTS)[variant] if variant else None)


def test_runs_tell_where_they_come_from(finished, runs):
    commit = finished.run("git", "rev-parse", "HEAD~1").stdout.strip()  # the last one holds the run's dvc.lock
    for run in runs.values():
        tags = run.data.tags
        assert tags["mlflow.source.git.commit"] == commit
        assert tags["git.dirty"] == "false"
        assert {"version.torch", "version.mlflow", "version.dvc", "hardware.cpu", "hardware.memory"} <= set(tags)


def test_parameters(runs):
    model, pretrain = runs["report-hybrid"].data.params, runs["pretrain-hybrid"].data.params
    for params in (model, pretrain):
        assert params["seed"] == "0"
        assert params["variant.w_con"] == "1.0"
        assert params["training.learning_rate"] == "0.006"
    assert model["ood.bootstrap"] == "50"
    assert pretrain["parameters"].isdigit()


def test_metrics_are_those_of_the_files(finished, runs):
    model = runs["report-hybrid"].data.metrics
    for stage in STAGES:
        results = json.loads((finished.root / f"outputs/hybrid/{stage}/results.json").read_text())["metrics"]
        assert {name: model[f"{stage}/{name}"] for name in results} == pytest.approx(results)
        own = runs[f"{stage}-hybrid"].data.metrics
        assert {name: own[name] for name in results} == pytest.approx(results)
    assert model["linear_accuracy"] == round(model["probe/linear_accuracy"], 4)  # MLflow's tables do not round
    assert "baselines/raw_pixels/linear_accuracy" in model


def test_metrics_of_training_have_steps(client, runs):
    run = runs["pretrain-hybrid"].info.run_id
    assert [m.step for m in client.get_metric_history(run, "nll_nats_per_token")] == [5, 10, 15, 20, 25, 30]
    assert [m.step for m in client.get_metric_history(run, "val/knn_accuracy")] == [15, 30]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_curves_stand_in_the_model_runs_too(client, runs, variant):
    def curve(name: str, run: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in client.get_metric_history(runs[run].info.run_id, name)]

    for name in ("contrastive_loss", "val/knn_accuracy", "nll_nats_per_token"):
        there = curve(f"pretrain/{name}", f"report-{variant}")
        assert there == curve(name, f"pretrain-{variant}")
        assert bool(there) == (variant == "hybrid" or name != "nll_nats_per_token")


def test_data_sets(finished, runs):
    splits = json.loads((finished.root / "data/prepared/dataset.json").read_text())["splits"]
    used = {item.dataset.name: item for item in runs["report-hybrid"].inputs.dataset_inputs}
    assert {name: item.dataset.digest for name, item in used.items()} == {
        name: split["fingerprint"][:36] for name, split in splits.items()
    }
    assert json.loads(used["test"].dataset.profile) == {"num_rows": 287}
    pretrained = {i.dataset.name: i.tags[0].value for i in runs["pretrain-hybrid"].inputs.dataset_inputs}
    assert pretrained == {"train": "pretraining", "val": "validation"}


def test_figures(client, runs):
    kept = artifacts(client, runs["report-hybrid"])
    assert {
        *(f"figures/pretrain/{name}.png" for name in ("training", "samples", "completions")),
        *(f"figures/probe/{name}.png" for name in ("confusion", "reliability", "few_label")),
        *(f"figures/ood/{name}.png" for name in ("roc", "scores")),
    } <= kept
    assert {"comparison.md", "report.html", "figures/comparison.png", "results.json"} <= artifacts(
        client, runs["compare"]
    )
    assert "summary.md" in artifacts(client, runs["validate"])


def test_each_variant_is_a_version_of_the_registered_model(finished, client, runs):
    versions = {v.tags["variant"]: v for v in client.search_model_versions("name = 'gcrl'")}
    assert set(versions) == set(VARIANTS)
    for variant, version in versions.items():
        model = runs[f"report-{variant}"]
        assert version.run_id == model.info.run_id
        assert float(version.tags["score"]) == pytest.approx(model.data.metrics["score"], abs=5e-5)
        assert "data_fingerprint" in version.tags
        assert "linear_accuracy" not in version.tags  # a metric of the run; each tag more hides the alias on the page
        assert version.tags["git.commit"] == model.data.tags["mlflow.source.git.commit"]
        assert version.tags["git.dirty"] == "false"
        assert (version.tags["gate_passed"], version.tags["gate"]) == ("True", "every condition is met")
        assert version.description == (finished.root / f"outputs/{variant}/export/card.md").read_text()


def test_the_best_is_challenger_and_champion(finished, client, runs):
    best = runs["compare"].data.tags["best"]
    assert best == json.loads((finished.root / "outputs/compare/results.json").read_text())["constants"]["best"]
    version = client.get_model_version_by_alias("gcrl", "champion")
    assert version.tags["variant"] == best
    assert client.get_model_version_by_alias("gcrl", "challenger").version == version.version
    assert runs["compare"].data.tags["promotion"] == "the gate passed and there was no champion"


def test_the_champion_answers_through_mlflow(finished, client):
    import mlflow

    mlflow.set_tracking_uri(finished.uri)
    mlflow.set_registry_uri(finished.uri)
    try:
        model = mlflow.pyfunc.load_model("models:/gcrl@champion")
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]
    signature = model.metadata.signature
    assert [(s.name, s.type.name, s.shape) for s in signature.inputs] == [("image", "uint8", (-1, 8, 8, 1))]
    assert [s.name for s in signature.outputs] == ["embedding", "probabilities", "ood_score", "is_ood"]
    images = np.load(finished.root / "data/prepared/test.npy")[:6]
    answer = model.predict({"image": images})
    assert {name: value.shape for name, value in answer.items()} == {
        "embedding": (6, 16),
        "probabilities": (6, 8),
        "ood_score": (6,),
        "is_ood": (6,),
    }
    best = client.get_model_version_by_alias("gcrl", "champion").tags["variant"]
    features = np.load(finished.root / f"outputs/{best}/embed/test.features.npy")[:6]
    assert answer["embedding"] == pytest.approx(features, abs=1e-3)
    assert model.metadata.saved_input_example_info is not None
