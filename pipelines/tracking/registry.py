"""ONNX models in MLflow: logged, registered as versions, and promoted to `challenger` and `champion`.

A version is a file: the same ONNX file, by its SHA-256, is the same version whoever reports it. Runs and versions bear
that hash as a tag, by which a run's version is found.
"""

import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError, nearest
from components.files import file_digest
from components.locks import locked
from pipelines.tracking.checks import journal_file
from pipelines.tracking.secrets import without_password
from pipelines.tracking.store import find_runs, quoted, run_exists

if TYPE_CHECKING:
    import onnx
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.models import ModelSignature

ONNX = "onnx_sha256"  # tag of runs and versions
LOCK = "registry.lock"  # in the tracking folder: one process at a time looks for a file's version and makes it
MAX_DESCRIPTION = 5000  # characters that MLflow's databases keep


def add_model(
    client: "MlflowClient", experiment_id: str, run_id: str, journal: Path, root: Path, model: Mapping[str, Any]
) -> None:
    """Give a run its ONNX model, and make it a version of its registered model unless the file is one already."""
    digest = file_digest(journal_file(journal, model["path"]))
    client.set_tag(run_id, ONNX, digest)
    name = model["registered_name"]
    if name is None:
        _log_model(client, experiment_id, run_id, journal, model)
        return
    with locked(root / LOCK):
        present = _version_of_file(client, name, digest)
        if present is None:
            _register(client, run_id, _log_model(client, experiment_id, run_id, journal, model), model, digest)
            return
        tag_version(client, name, str(present.version), model["tags"])  # its score may be of newer data
        if present.run_id and run_exists(client, present.run_id):
            for model_id in _models_of(client, present.run_id):
                _link(client, run_id, model_id)


def _log_model(
    client: "MlflowClient", experiment_id: str, run_id: str, journal: Path, model: Mapping[str, Any]
) -> "LoggedModel":
    """Log an ONNX file as a model of the run. An interrupted upload is taken up under the same id.

    Raises:
        UserError: a file that the event names is not the journal's own.
    """
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import Model

    path = journal_file(journal, model["path"])
    example_path = journal_file(journal, model["input_example"]) if model["input_example"] else None
    extra_files = [journal_file(journal, file) for file in model["extra_files"]]
    same = f"source_run_id = {quoted(run_id)} AND name = {quoted(model['name'])}"
    found = client.search_logged_models([experiment_id], filter_string=same)
    logged = found[0] if found else client.create_logged_model(experiment_id, model["name"], run_id, model["tags"])
    if logged.status == "READY":
        return logged
    _link(client, run_id, logged.model_id)
    graph = onnx.load(path, load_external_data=False)
    example = np.load(example_path) if example_path else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        mlflow.onnx.save_model(
            graph,
            str(folder),
            mlflow_model=Model(logged.artifact_location, run_id, model_uuid=logged.model_id, model_id=logged.model_id),
            signature=signature(graph),
            input_example=example,
            pip_requirements=[
                f"{package}=={metadata.version(package)}" for package in ("onnx", "onnxruntime", "numpy")
            ],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            extra_files=list(map(str, extra_files)),
        )
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged


def signature(graph: "onnx.ModelProto") -> "ModelSignature":
    """Names, types and shapes as the graph declares them; a dynamic dimension is −1."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    def schema(values: Any) -> Schema:
        specs: list[ColSpec | TensorSpec] = []
        for value in values:
            tensor = value.type.tensor_type
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
            specs.append(TensorSpec(np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type)), shape, value.name))
        return Schema(specs)

    return ModelSignature(schema(graph.graph.input), schema(graph.graph.output))


def _link(client: "MlflowClient", run_id: str, model_id: str) -> None:
    """Show a logged model as the run's."""
    from mlflow.entities import LoggedModelOutput

    if model_id not in _models_of(client, run_id):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _models_of(client: "MlflowClient", run_id: str) -> list[str]:
    outputs = client.get_run(run_id).outputs
    return [output.model_id for output in outputs.model_outputs] if outputs else []


def _register(
    client: "MlflowClient", run_id: str, logged: "LoggedModel", model: Mapping[str, Any], digest: str
) -> None:
    """Make the logged model a version of its registered model."""
    from mlflow.exceptions import MlflowException

    name = model["registered_name"]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    description = model["description"]
    if len(description) > MAX_DESCRIPTION:
        description = description[: MAX_DESCRIPTION - 30] + "\n\n… (cut; see the run's files)"
    tags = {**model["tags"], ONNX: digest}
    # Not `models:/<id>` as source: a store without a server resolves that through MLflow's global tracking URI.
    client.create_model_version(
        name, logged.artifact_location, run_id, tags, description=description, model_id=logged.model_id
    )


def find_version(client: "MlflowClient", name: str, run_key: str) -> "ModelVersion | None":
    """The version of a registered model that is the file of this key's run."""
    digests = [run.data.tags[ONNX] for run in find_runs(client, run_key) if ONNX in run.data.tags]
    return _version_of_file(client, name, digests[0]) if digests else None


def _version_of_file(client: "MlflowClient", name: str, digest: str) -> "ModelVersion | None":
    versions = client.search_model_versions(f"name = {quoted(name)} AND tags.`{ONNX}` = {quoted(digest)}")
    return min(versions, key=lambda v: int(v.version)) if versions else None


def tag_version(client: "MlflowClient", name: str, version: str, tags: Mapping[str, Any]) -> None:
    """Set tags of a version; MLflow has no call for several."""
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, str(value))


def registered_model(client: "MlflowClient", name: str) -> "RegisteredModel":
    """The registered model of that name. Raises UserError where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [model.name for model in client.search_registered_models()]
        there = f"Registered are: {', '.join(known)}." if known else "None is yet: `dvc repro` registers one."
        where = without_password(client.tracking_uri)
        raise UserError(f"model: no registered model {name!r} in {where}{nearest(name, known)}. {there}") from None


def versions_of(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    """All versions of a registered model, oldest first."""
    return sorted(client.search_model_versions(f"name = {quoted(name)}"), key=lambda v: int(v.version))


def version_of(client: "MlflowClient", name: str, wanted: str) -> "ModelVersion":
    """The version that has this alias or number. Raises UserError where there is none."""
    model = registered_model(client, name)
    versions = versions_of(client, name)
    for version in versions:
        if str(version.version) == str(model.aliases.get(wanted, wanted)):
            return version
    there = ", ".join(shown(version) for version in versions[-10:]) or "none"
    raise UserError(
        f"alias: no version of {name} in {without_password(client.tracking_uri)} is {wanted!r}. Its versions: {there}. "
        f"Its aliases: {', '.join(model.aliases) or 'none'}. "
        "A champion comes with `dvc repro` where the gate passes, or by hand with `make promote`."
    )


def shown(version: "ModelVersion") -> str:
    """A version's number, with its variant and score where it bears them."""
    score = f"score {float(version.tags['score']):.4f}" if "score" in version.tags else None
    known = ", ".join(filter(None, [version.tags.get("variant"), score]))
    return f"{version.version} ({known})" if known else str(version.version)
