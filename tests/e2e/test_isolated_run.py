"""A flow with an override in the finished project: it trains elsewhere what the override concerns, and reports here."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.stages.registry import reported

pytestmark = pytest.mark.e2e


def kept(root: Path) -> dict[str, str]:
    """Everything that is a person's own: all but what belongs to DVC, git, MLflow and tracking."""
    shared = (".dvc/", ".git/", "mlruns/", ".tracking/")
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {
        name: hashlib.md5(path.read_bytes()).hexdigest()
        for name, path in found.items()
        if not name.startswith(shared) and "__pycache__" not in name
    }


def test_an_override_trains_one_variant_and_leaves_the_project_as_it_is(scratch, tmp_path):
    from mlflow import MlflowClient

    scratch.edit({"probe.draws": 3})  # a person's experiment, not committed
    before = kept(scratch.root)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "flow", "reproduce", 'overrides={"variants.hybrid.w_con": 2}'],
        cwd=scratch.root,
        env=scratch.environment | {"PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not in this run, because not committed: changes in params.yaml" in done.stdout + done.stderr
    assert kept(scratch.root) == before
    (folder,) = (path for path in (scratch.root / ".dvc/tmp/workspaces").iterdir() if path.is_dir())
    assert not (folder / ".tracking" / "journals").exists()
    assert not (folder / "mlruns").exists()
    images = folder / "data/prepared/train.npy"
    assert any(path.samefile(images) for path in (scratch.root / ".dvc/cache/files").rglob("*"))  # no second copy

    client = MlflowClient(scratch.uri, scratch.uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    newest = client.search_runs(ids, "tags.kind = 'model'", order_by=["start_time DESC"])[0]
    report = json.loads((folder / "outputs/reports/hybrid/record.json").read_text())
    assert newest.data.tags["gcrl.run_key"] == report["run_key"]
    assert newest.data.params["variant.w_con"] == "2.0"
    assert newest.data.tags["prefect.flow"] == "reproduce"
    stages = {name: value for name, value in newest.data.tags.items() if name.startswith("stage.")}
    assert {name for name, value in stages.items() if value == "run"} == {f"stage.{name}" for name in reported()}
    assert {name for name, value in stages.items() if value == "cached"} == {
        f"stage.{name}" for name in ("prepare", "validate", "baselines")
    }
    since = f"tags.`prefect.flow_run_id` = '{newest.data.tags['prefect.flow_run_id']}'"
    assert {(run.data.tags["stage"], run.data.tags.get("variant")) for run in client.search_runs(ids, since)} == {
        *((name, "hybrid") for name in (*reported(), "report")),
        ("compare", None),
    }
