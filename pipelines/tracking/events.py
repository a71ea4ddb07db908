"""What each event of a journal does in MLflow. Everything here may be repeated without doubling anything."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking import promotion, registry, store
from pipelines.tracking.checks import journal_file
from pipelines.tracking.spool import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

BATCHED = {"start", "metrics", "params", "tags"}
METRICS_A_CALL, TEXTS_A_CALL = 1000, 100  # MLflow's limits


@dataclass(frozen=True)
class Target:
    """The MLflow run that a journal is delivered to."""

    client: "MlflowClient"
    run_id: str
    experiment_id: str
    run_key: str
    folder: Path  # of the journal
    root: Path  # of all tracking


class WaitsForAnotherError(Exception):
    """The event refers to a run whose journal is still to be delivered."""


def log_batch(target: Target, events: list[Event]) -> None:
    """Metrics, parameters and tags, in as few calls as MLflow's limits allow.

    MLflow drops a metric that equals a stored one in name, step, time and value, and accepts a repeated parameter.
    """
    from mlflow.entities import Metric, Param, RunTag

    metrics = [
        Metric(name, value, event.time, event.fields["step"])
        for event in events
        if event.kind == "metrics"
        for name, value in event.fields["values"].items()
    ]
    params = [Param(k, v) for event in events for k, v in event.fields.get("params", {}).items()]
    tags = [RunTag(k, v) for event in events for k, v in event.fields.get("tags", {}).items()]
    for i in range(0, len(metrics), METRICS_A_CALL):
        target.client.log_batch(target.run_id, metrics=metrics[i : i + METRICS_A_CALL], synchronous=True)
    for i in range(0, len(params), TEXTS_A_CALL):
        target.client.log_batch(target.run_id, params=params[i : i + TEXTS_A_CALL], synchronous=True)
    for i in range(0, len(tags), TEXTS_A_CALL):
        target.client.log_batch(target.run_id, tags=tags[i : i + TEXTS_A_CALL], synchronous=True)


def apply(target: Target, event: Event) -> None:
    """One event that is not batched."""
    fields = event.fields
    match event.kind:
        case "dataset":
            _log_dataset(target, fields)
        case "artifact":
            path = journal_file(target.folder, fields["path"])
            if path.is_dir():
                folder = "/".join(filter(None, (fields["folder"], path.name)))
                target.client.log_artifacts(target.run_id, str(path), folder)
            else:
                target.client.log_artifact(target.run_id, str(path), fields["folder"])
        case "model":
            registry.add_model(target.client, target.experiment_id, target.run_id, target.folder, target.root, fields)
        case "nest":
            for child in fields["children"]:
                _nest(target, child)
        case "nest_under":
            if parent := _find(target, fields["parent"]):
                target.client.set_tag(target.run_id, "mlflow.parentRunId", parent.info.run_id)
        case "version_tags":
            if version := _version(target, fields):
                registry.tag_version(target.client, version.name, str(version.version), fields["tags"])
        case "promote":
            _version(target, fields)
            promotion.propose(target.client, target.run_id, target.run_key, target.root, fields)
        case "finish":
            target.client.set_terminated(target.run_id, fields["status"], event.time)
            if fields["status"] == "FINISHED" and "error" in target.client.get_run(target.run_id).data.tags:
                target.client.delete_tag(target.run_id, "error")  # of an earlier try of the same run
        case unknown:
            raise ValueError(f"unknown event `{unknown}`: the journal was written by a newer version of this project")


def _version(target: Target, fields: dict[str, Any]) -> "ModelVersion | None":
    """The version that a run registered; None where it went to another server."""
    version = registry.find_version(target.client, fields["registered_name"], fields["model_run_key"])
    if version is None:
        _must_not_wait(target, fields["model_run_key"])
    return version


def _log_dataset(target: Target, fields: dict[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    dataset = Dataset(
        name=fields["name"],
        digest=fields["digest"],
        source_type="local",
        source=json.dumps({"uri": fields["source"]}),
        profile=json.dumps(fields["profile"]),
    )
    tags = [InputTag(MLFLOW_DATASET_CONTEXT, fields["context"])] if fields["context"] else []
    target.client.log_inputs(target.run_id, [DatasetInput(dataset, tags)])


def _nest(target: Target, child_key: str) -> None:
    child = _find(target, child_key)
    if child is None:
        return
    parent = child.data.tags.get("mlflow.parentRunId", target.run_id)
    if parent == target.run_id:
        target.client.set_tag(child.info.run_id, "mlflow.parentRunId", target.run_id)
    else:  # a cached stage: its run belongs to the model run that first made it
        target.client.set_tag(target.run_id, f"gcrl.reused.{child.data.tags.get('stage')}", child.info.run_id)


def _find(target: Target, run_key: str) -> "Run | None":
    """The run of this key; where it went to another server, None and a tag that says so."""
    found = store.find_runs(target.client, run_key)
    if found:
        return found[0]
    _must_not_wait(target, run_key)
    target.client.set_tag(target.run_id, f"gcrl.not_here.{run_key}", "this run was sent to another tracking server")
    return None


def _must_not_wait(target: Target, run_key: str) -> None:
    if (target.root / "journals" / run_key).exists():
        raise WaitsForAnotherError(f"{target.run_key} waits for {run_key}, which is not delivered yet")
