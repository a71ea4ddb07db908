"""Where runs are shown in MLflow's UI."""

from collections.abc import Collection
from pathlib import Path

from pipelines.tracking import store
from pipelines.tracking.secrets import without_password


def run_links(keys: Collection[str], uri: str, root: Path) -> dict[str, str]:
    """Run key → address in the UI, of those runs that a tracking server has; none where `uri` is no server's.

    Raises whatever MLflow raises where the server does not answer.
    """
    if not uri.startswith("http") or not keys:
        return {}
    client = store.connect(uri, root, timeout=10)
    address = without_password(uri).rstrip("/")
    found = {key: run.info for key in keys for run in store.find_runs(client, key)}
    return {key: f"{address}/#/experiments/{info.experiment_id}/runs/{info.run_id}" for key, info in found.items()}
