"""The MLflow store: where it is, how to reach it without waiting long, what went wrong in words."""

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, cast

from components.errors import UserError
from components.locks import locked
from pipelines.tracking import views
from pipelines.tracking.limit import Limited
from pipelines.tracking.secrets import is_readable, told, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_KEY = "gcrl.run_key"
REACH_SECONDS = 5  # a server that does not answer its first request in this time counts as unreachable

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A request that timed out may have been executed: repeating it blindly could create a run twice. We look first.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

USER_TIMEOUT = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", 0))


def default_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in `mlruns/` beside the tracking folder `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve().parent / 'mlruns' / 'mlflow.db'}"


def is_missing(uri: str) -> bool:
    """Whether the store is a SQLite file that nobody has made yet; `connect` would make it."""
    database = _sqlite_file(uri)
    return database is not None and not database.exists()


def connect(uri: str, root: Path, timeout: float) -> "MlflowClient":
    """A client whose store exists and has answered. Requests after the first wait up to `timeout` seconds; those to a
    server end soon after, whatever it sends meanwhile.

    The first use of a database creates its tables. Processes that do so at the same time break each other,
    so they take turns here.
    """
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(REACH_SECONDS)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # logs each error with its traceback before it raises it; `explain` tells it in one line
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    database = _sqlite_file(uri)
    lock = database.with_name(f"{database.name}.lock") if database else root / "store.lock"
    if not uri.startswith("http"):
        import mlflow.store.db.utils

        mlflow.store.db.utils.MAX_RETRY_COUNT = 1  # it would knock at an absent database for a hundred seconds
    with locked(lock):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        limited = Limited(client, REACH_SECONDS) if uri.startswith("http") else None
        (limited or client).search_experiments(max_results=1)
    seconds = round(max(1, timeout, USER_TIMEOUT))
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(seconds)
    if limited is None:
        return client
    limited.seconds = seconds
    return cast("MlflowClient", limited)


def experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    """The experiment of that name, with its views: found, created, or restored if deleted (its name stays taken)."""
    from mlflow.exceptions import MlflowException

    database = _sqlite_file(uri)
    location = (database.parent / "artifacts").as_uri() if database else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI's pages for training, not for chats
            return str(client.create_experiment(name, artifact_location=location, tags=kind | views.tags()))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    for tag, value in views.tags().items():
        if experiment.tags.get(tag) != value:
            client.set_experiment_tag(experiment.experiment_id, tag, value)
    return str(experiment.experiment_id)


def find_runs(client: "MlflowClient", run_key: str, experiments: list[str] | None = None) -> "list[Run]":
    """Runs with this key, oldest first, in these experiments or in all."""
    experiments = experiments or [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{RUN_KEY}` = {quoted(run_key)}", order_by=["start_time ASC"]))


def run_links(keys: Collection[str], uri: str, root: Path) -> dict[str, str]:
    """Run key → address in the UI, of those runs that a tracking server has; none where `uri` is no server's.

    Raises whatever MLflow raises where the server does not answer.
    """
    if not uri.startswith("http") or not keys:
        return {}
    client = connect(uri, root, timeout=10)
    address = without_password(uri).rstrip("/")
    found = {key: run.info for key in keys for run in find_runs(client, key)}
    return {key: f"{address}/#/experiments/{info.experiment_id}/runs/{info.run_id}" for key, info in found.items()}


def quoted(value: str) -> str:
    """A value in one of MLflow's filters, which know no escapes. Raises UserError where it can't be written."""
    for mark in ("'", '"'):
        if mark not in value and "\\" not in value:
            return f"{mark}{value}{mark}"
    raise UserError(f"{value!r}: MLflow can't search for a name with both kinds of quotation marks or a backslash.")


def run_exists(client: "MlflowClient", run_id: str) -> bool:
    """Whether the run is there and not deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def explain(error: Exception, uri: str) -> str:
    """What went wrong and what to do, in one line."""
    text = " ".join(str(error).split())
    shown = without_password(uri)
    if not is_readable(uri):
        return (
            f"{shown} cannot be read as an address: write special characters of name and password as %40 (for @), %2F "
            "(/), %23 (#), %3F (?), or give an MLflow server's in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    code = re.search(r"error code (\d{3})", text)
    status = int(code[1]) if code else getattr(error, "get_http_status_code", lambda: 0)()
    if "password authentication failed" in text:
        return f"{shown} refused the credentials"
    if "OperationalError" in text and "connection to server" in text:
        return f"{shown} cannot be reached"
    if uri.startswith("http"):
        if status == 401:
            return f"{shown} refused the credentials: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        if status == 403:
            return (
                f"{shown} refused access: the account may not write there, or --allowed-hosts lacks the server's name"
            )
        if too_many := re.search(r"too many (\d{3}) error responses", text):
            return f"{shown} answers with error {too_many[1]}"
        if "timed out" in text.lower() or "timeout" in text.lower():
            return f"{shown} does not answer"
        if "HTTPConnectionPool" in text or "HTTPSConnectionPool" in text or "Connection" in text:
            return f"{shown} cannot be reached"
        if status in (404, 405) or "valid JSON" in text:
            return f"{shown} does not answer as an MLflow server: check MLFLOW_TRACKING_URI"
    return f"{shown}: {told(error, uri)}"


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None
