"""The uploader against MLflow on PostgreSQL: a server with accounts, and the database itself at first use."""

import json
import os
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.tracking import Journal, deliver
from pipelines.tracking.spool import waiting

CONFIGURATION = Path(__file__).parents[3] / "mlflow" / "basic_auth.ini"
PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def database(postgres) -> Callable[[str], str]:
    """Create a database; its URL names the driver, because SQLAlchemy's default for PostgreSQL changes with 2.1."""
    return lambda name: postgres.database(name).replace("postgresql:", "postgresql+psycopg2:")


@pytest.fixture(scope="module")
def first_use(
    database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[tuple[str, int]]]:
    """An empty database to which four processes deliver a run at once: its URL, what each printed and exited with."""
    uri, root = database("mlflow"), tmp_path_factory.mktemp("first-use")
    code = (
        "import sys; from pathlib import Path; from pipelines.tracking import Journal, deliver;\n"
        "with Journal.start('probe', sys.argv[2], root=Path(sys.argv[1])) as j: j.metrics({'accuracy': 1})\n"
        "d = deliver(sys.argv[3], root=Path(sys.argv[1]), only=[j.key], timeout=120); sys.exit(d.error)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, root, f"v{i}", uri], env=environment, stderr=subprocess.PIPE, text=True
        )
        for i in range(4)
    ]
    return uri, [(process.communicate()[1], process.returncode) for process in processes]


@pytest.fixture(scope="module")
def server(first_use: tuple[str, Any], listening: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """`mlflow server` on PostgreSQL with accounts, as mlflow/basic_auth.ini sets it up."""
    folder = tmp_path_factory.mktemp("secured")
    (folder / "mlruns").mkdir()
    return listening(
        *(folder, "server", "--app-name", "basic-auth", "--workers", "1"),
        *("--backend-store-uri", first_use[0], "--artifacts-destination", str(folder / "files")),
        MLFLOW_AUTH_CONFIG_PATH=str(CONFIGURATION),
        MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
        MLFLOW_FLASK_SERVER_SECRET_KEY="of-this-test",
    )


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    def use(name: str, password: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)

    return use


def test_many_processes_create_one_database(first_use: tuple[str, list[tuple[str, int]]]) -> None:
    uri, outcomes = first_use
    assert [code for _, code in outcomes] == [0] * 4, outcomes
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("gcrl")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.stage = 'probe'")
    assert sorted(run.data.tags["variant"] for run in runs) == ["v0", "v1", "v2", "v3"]
    assert all(run.data.metrics == {"accuracy": 1} for run in runs)


def test_delivery_with_an_account(
    server: str, account: Callable[[str, str], None], root: Path, onnx_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # an experiment of its own: the first one's artifacts have the place of the process that created it
    with Journal.start("report", "hybrid", experiment="served", root=root) as report:
        report.metrics({"loss": 0.5}, step=1)
        report.metrics({"loss": 0.25}, step=2)
        report.artifact(onnx_file.with_name("example.npy"))
        report.model(onnx_file, "hybrid", "encoder", tags={"variant": "hybrid"}, description="# Card")

    account("admin", "wrong")
    refused = deliver(server, root=root)
    assert refused.pending == [report.key]
    hint = f"{server} refused the credentials: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    assert refused.error == hint
    told = capsys.readouterr().err
    assert hint in told
    assert "wrong" not in told
    assert waiting(root) == [report.key]

    account("admin", PASSWORD)
    delivery = deliver(server, root=root)
    assert delivery.error is None
    client = MlflowClient(server, server)
    run = delivery.sent[report.key]
    assert [(m.step, m.value) for m in client.get_metric_history(run, "loss")] == [(1, 0.5), (2, 0.25)]
    assert [f.path for f in client.list_artifacts(run)] == ["example.npy"]
    assert client.get_model_version("encoder", "1").run_id == run
    experiment = client.get_run(run).info.experiment_id
    assert "mlflow.sharedViewState.models" in client.get_experiment(experiment).tags


def test_an_account_that_may_only_read_is_told_so(server: str, account: Callable[[str, str], None], root: Path) -> None:
    administrator = b64encode(f"admin:{PASSWORD}".encode()).decode()
    urllib.request.urlopen(
        urllib.request.Request(
            f"{server}/api/2.0/mlflow/users/create",
            json.dumps({"username": "reader", "password": "only-reads-things"}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Basic {administrator}"},
        ),
        timeout=30,
    )
    account("reader", "only-reads-things")
    with Journal.start("prepare", root=root) as journal:
        pass
    delivery = deliver(server, root=root)
    assert delivery.pending == [journal.key]
    assert "refused access: the account may not write there" in str(delivery.error)


def test_a_database_that_is_away_or_refuses_costs_no_time(database: Callable[[str], str], root: Path) -> None:
    with Journal.start("probe", root=root) as journal:
        pass
    wrong = database("refused").replace("postgres:", "postgres:wrong", 1)
    where = wrong.rpartition("@")[2]
    delivery = deliver(wrong, root=root)
    assert delivery.pending == [journal.key]
    assert delivery.error == f"postgresql+psycopg2://{where} refused the credentials"
    delivery = deliver("postgresql+psycopg2://someone:secret@127.0.0.1:9/mlflow", root=root)
    assert delivery.error == "postgresql+psycopg2://127.0.0.1:9/mlflow cannot be reached"
