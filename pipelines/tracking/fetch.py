"""Fetching a registered model's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UserError
from pipelines.tracking import registry, store
from pipelines.tracking.limit import within
from pipelines.tracking.secrets import without_password, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DOWNLOAD_SECONDS = 1800  # of a model, over the slowest line
REFERENCE, KNOWN = "reference.npz", "known_images.npy"


@dataclass(frozen=True)
class Fetched:
    """A version's files on this machine."""

    name: str
    version: str
    run_id: str  # "" where none made it
    model: Path  # the ONNX file
    reference: Path
    known: Path | None  # which images it knows

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


def fetch_model(name: str, alias: str, to: Path, root: Path) -> Fetched:
    """Download the version of a registered model that has this alias or number into the folder `to`.

    `root` is the project's tracking folder. Raises UserError where MLflow can't be reached, the model or the alias is
    unknown, the files are gone, or it is no ONNX model with a reference, as the export stage makes them.
    """
    with _asking(root) as (client, uri):
        return _download(registry.version_of(client, name, alias), to, uri)


def version_of(name: str, alias: str, root: Path) -> "ModelVersion":
    """The version that an alias points at. Raises UserError where MLflow can't be reached, or there is none."""
    with _asking(root) as (client, _):
        return registry.version_of(client, name, alias)


@contextmanager
def _asking(root: Path) -> "Iterator[tuple[MlflowClient, str]]":
    """MLflow and its URI; whatever it answers with instead is a UserError."""
    uri = store.default_uri(root)
    if store.is_missing(uri):
        shown = without_password(uri)
        raise UserError(f"MLflow: there is no store at {shown} yet. Run `dvc repro` first, or set MLFLOW_TRACKING_URI.")
    try:
        yield store.connect(uri, root, timeout=60.0), uri
    except UserError:
        raise
    except Exception as error:  # of MLflow, which has no common type for what a network can do
        raise UserError(f"MLflow: {store.explain(error, uri)}.") from error


def _download(version: "ModelVersion", to: Path, uri: str) -> Fetched:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    shown = f"{version.name} version {version.version}"
    try:
        place = {"dst_path": str(to), "tracking_uri": uri, "registry_uri": uri}
        folder = Path(within(DOWNLOAD_SECONDS, lambda: download_artifacts(version.source, **place)))
        flavors = Model.load(folder).flavors
    except (MlflowException, OSError) as error:
        reason, source = without_secrets(str(error), uri), without_password(str(version.source))
        raise UserError(f"{shown}: its files can't be fetched from {source} ({reason}).") from error
    if "onnx" not in flavors:
        raise UserError(f"{shown} is no ONNX model ({', '.join(flavors)}). The export stage makes one: `dvc repro`.")
    extra = {Path(file["path"]).name: folder / file["path"] for file in flavors["onnx"].get("extra_files") or ()}
    if REFERENCE not in extra:
        raise UserError(f"{shown} has no {REFERENCE} to compare images with. Let `dvc repro` register one that has.")
    model = folder / flavors["onnx"]["data"]
    return Fetched(version.name, str(version.version), version.run_id or "", model, extra[REFERENCE], extra.get(KNOWN))
