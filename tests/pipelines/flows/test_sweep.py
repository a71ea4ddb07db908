import csv
from pathlib import Path
from typing import Any

import pytest

from components.markdown import literal
from pipelines.flows.sweep import sweep

pytestmark = pytest.mark.usefixtures("prefect_server")

# as the real report stage does, from parameters alone; one combination brings no luck
REPORT = """
import json, pathlib, sys
from ruamel.yaml import YAML
variant, runs = sys.argv[1:]
params = YAML(typ="safe").load(pathlib.Path("params.yaml"))
with open(runs, "a") as file:
    print(variant, params["seed"], params["training"]["learning_rate"], file=file)
if (params["seed"], params["training"]["learning_rate"]) == (2, 0.25):
    sys.exit("error: bad luck")
score = params["training"]["learning_rate"] + params["seed"] / 100
folder = pathlib.Path("outputs/reports", variant)
folder.mkdir(parents=True)
(folder / "results.json").write_text(json.dumps({"metrics": {"score": score, "linear_accuracy": 0.5}}))
(folder / "record.json").write_text(json.dumps({"run_key": f"key-{variant}-{params['seed']}"}))
"""


@pytest.fixture
def root(committed, commit, tmp_path) -> Path:
    command = f"python report.py ${{key}} {tmp_path / 'runs'}"
    report = {
        "cmd": command,
        "deps": ["report.py"],
        "params": ["seed", "training", "variants.${key}"],
        "outs": ["outputs/reports/${key}"],
    }
    root: Path = committed({"report": {"foreach": "${variants}", "do": report}})
    (root / "report.py").write_text(REPORT)
    with (root / ".gitignore").open("a") as file:
        file.write("/outputs/\n")
    commit(root)
    return root


def runs(root: Path) -> list[str]:
    path = root.parent / "runs"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def run(root: Path, **parameters: Any) -> Any:
    return sweep(project=str(root), **parameters, return_state=True)


def sent(root: Path) -> list[Any]:
    """The sweeps' runs in the project's MLflow store, oldest first."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{root / 'mlruns' / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, "tags.kind = 'sweep'", order_by=["start_time ASC"]))


def test_a_grid_is_ranked_resumed_and_tracked(root, monkeypatch):
    from prefect.artifacts import Artifact

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wanted = {"seeds": [1, 2], "parameters": {"training.learning_rate": [0.25, 0.5]}, "variants": ["hybrid"]}
    state = run(root, **wanted)
    assert state.is_failed()
    unlucky = "seed=2, training.learning_rate=0.25: 1 failed. report@hybrid: bad luck"
    assert state.message == f"1 of 4 failed. {unlucky}"
    assert set(runs(root)) == {f"hybrid {seed} {rate}" for seed in (1, 2) for rate in (0.25, 0.5)}
    (folder,) = (root / "data/sweeps").iterdir()
    table = (folder / "ranking.md").read_text()
    best, second = (line for line in table.splitlines() if line.startswith("| hybrid"))
    assert best.startswith("| hybrid | 0.5 | 0.5150 ± 0.0071 | 50.0% ± 0.0% |")
    assert best.endswith("| 2 |")
    assert second.startswith("| hybrid | 0.25 | 0.2600 | 50.0% |")
    assert f"- {literal(unlucky)}" in table
    assert Artifact.get("sweep").data == table
    assert (folder / "ranking.png").stat().st_size > 0
    with (folder / "results.csv").open(newline="") as file:
        rows = [(row["seed"], row["training.learning_rate"], row["run_key"]) for row in csv.DictReader(file)]
    assert rows == [("1", "0.25", "key-hybrid-1"), ("1", "0.5", "key-hybrid-1"), ("2", "0.5", "key-hybrid-2")]

    (root.parent / "runs").unlink()
    assert run(root, **wanted).is_failed()
    assert set(runs(root)) == {"hybrid 2 0.25"}  # nothing else
    first, again = sent(root)
    assert first.info.status == "FAILED"
    assert first.data.tags["sweep"] == again.data.tags["sweep"] == folder.name
    assert first.data.metrics == {"trained": 3, "failed_members": 1, "score": 0.515}
    assert first.data.params == {"variant": "hybrid", "training.learning_rate": "0.5"}
    assert not (root / "outputs").exists()
    assert not (root / "dvc.lock").exists()


def test_all_variants_and_the_seed_of_the_parameters_by_default(root):
    state = run(root)
    assert state.is_completed()
    assert {(result.variant, result.seed) for result in state.result()} == {
        ("hybrid", 0),
        ("generative", 0),
        ("contrastive", 0),
    }


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"variants": ["hybird"]}, "unknown variant 'hybird', did you mean 'hybrid'"),
        ({"variants": []}, "variants: expected at least one value"),
        ({"seeds": []}, "seeds: expected at least one value"),
        ({"parameters": {"training.learning_rate": []}}, "training.learning_rate: expected at least one value"),
        ({"parameters": {"training.learning_rat": [0.1]}}, "training.learning_rat: unknown key, did you mean"),
        ({"parameters": {"training.learning_rate": [0.1, "high"]}}, "training.learning_rate: "),
        ({"parameters": {"seed": [1]}}, "give the values of `seed` as `seeds`"),
        ({"seeds": [-1]}, "seed: "),
        ({"preset": "no-such"}, "unknown preset 'no-such'"),
        ({"project": "/nowhere"}, "/nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_runs(root, parameters, told):
    state = sweep(**{"project": str(root)} | parameters, return_state=True)
    assert state.is_failed()
    assert told in state.message
    assert runs(root) == []
    assert not (root / "data").exists()
