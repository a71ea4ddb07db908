"""compose.yaml without a container engine: its services' own commands, environments and health checks, on one machine.

What a network of containers would give is put in by hand: addresses, free ports, folders.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.e2e.deployed import INSTALLS_NOTHING

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "compose.yaml")
SETTINGS = {
    **{name: f"secret-{name}" for name in ("POSTGRES_PASSWORD", "MLFLOW_SECRET_KEY", "PREFECT_PASSWORD")},
    "MLFLOW_ADMIN_PASSWORD": "a-long-password",
    "ACTIVE": "false",
}
IMAGE = dict(re.findall(r"^ +(\w+)=(true|false|1)\b", DOCKERFILE, re.MULTILINE))  # what its ENV switches on and off
START_SECONDS = 300


@dataclass(frozen=True)
class Machine:
    """What stands in for the containers and their network."""

    folder: Path
    database: dict[str, str]  # variables that lead to PostgreSQL
    places: dict[str, str]  # address or path in a container → here
    ports: dict[str, int]

    def adapt(self, value: Any) -> str:
        """A value of compose.yaml as it is after interpolation, with this machine's places."""
        text = re.sub(r"\$\{(\w+):[?-]([^}]*)\}", lambda found: SETTINGS.get(found[1], found[2]), str(value))
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def environment(self, service: str) -> dict[str, str]:
        foreign = ("MLFLOW_", "PREFECT_", "PG", "DVC_", "GIT_", "PIPELINE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        asked = {name: self.adapt(value) for name, value in COMPOSE["services"][service]["environment"].items()}
        return {
            **kept,
            **IMAGE,
            **asked,
            **{name: value for name, value in self.database.items() if name in asked or name == "PGPORT"},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports["worker"]),
        }

    def start(self, stack: ExitStack, service: str, command: list[str], folder: Path) -> subprocess.Popen[bytes]:
        """Start the command; the stack ends it with its children."""
        with self.log(service).open("wb") as output:
            process = subprocess.Popen(
                [self.adapt(word) for word in command],
                cwd=folder,
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        def end() -> None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

        stack.callback(end)
        return process

    def wait_until_healthy(self, service: str, check: list[str], process: subprocess.Popen[bytes]) -> None:
        """Until the health check's command says so."""
        command = [self.adapt(word) for word in check]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(command, env=self.environment(service), capture_output=True).returncode:
            assert process.poll() is None, self.log(service).read_text()
            assert time.monotonic() < deadline, self.log(service).read_text()
            time.sleep(0.5)

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def url(self, service: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}{path}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def health_check(service: str) -> list[str]:
    kind, *command = COMPOSE["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"
    return command


def ask(url: str, user: str | None = None, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and body of the answer."""
    if user:
        headers["Authorization"] = "Basic " + b64encode(user.encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, None


@pytest.fixture(scope="module")
def machine(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """MLflow and Prefect as compose.yaml starts them, on PostgreSQL, both healthy."""
    url = urlsplit(postgres.database("compose"))
    for statement in COMPOSE["configs"]["databases"]["content"].replace("DATABASE ", "DATABASE compose_").splitlines():
        psql = [postgres.binaries / "psql", "--quiet", "--command", statement, url.geturl()]
        subprocess.run(psql, check=True)
    found = {"HOST": str(url.hostname), "PORT": str(url.port), "USER": str(url.username), "PASSWORD": str(url.password)}
    database = {
        f"{prefix}{name}": value for name, value in found.items() for prefix in ("PG", "PREFECT_SERVER_DATABASE_")
    }
    folder = tmp_path_factory.mktemp("compose")
    ports = {name: free_port() for name in ("mlflow", "prefect", "worker", "serve")}
    places = {
        "0.0.0.0": "127.0.0.1",
        "http://mlflow:5000": f"http://127.0.0.1:{ports['mlflow']}",
        "http://prefect:4200": f"http://127.0.0.1:{ports['prefect']}",
        "127.0.0.1:5000": f"127.0.0.1:{ports['mlflow']}",
        "127.0.0.1:4200": f"127.0.0.1:{ports['prefect']}",
        "127.0.0.1:8080/health": f"127.0.0.1:{ports['worker']}/health",
        "127.0.0.1:8080/ping": f"127.0.0.1:{ports['serve']}/ping",
        "--port=5000": f"--port={ports['mlflow']}",
        "--port=4200": f"--port={ports['prefect']}",
        "--port 8080": f"--port {ports['serve']}",
        "=/artifacts": f"={folder / 'artifacts'}",
        "/etc/mlflow": str(folder),
        "psycopg2:///": "psycopg2:///compose_",
    }
    machine = Machine(folder, database | {"PREFECT_SERVER_DATABASE_NAME": "compose_prefect"}, places, ports)
    (folder / "basic_auth.ini").write_text(machine.adapt(COMPOSE["configs"]["mlflow_accounts"]["content"]))
    with ExitStack() as stack:
        services = ("mlflow", "prefect")
        started = [machine.start(stack, name, COMPOSE["services"][name]["command"], folder) for name in services]
        for name, process in zip(services, started, strict=True):
            machine.wait_until_healthy(name, health_check(name), process)
        yield machine


MLFLOW_USER = f"admin:{SETTINGS['MLFLOW_ADMIN_PASSWORD']}"
PREFECT_USER = f"admin:{SETTINGS['PREFECT_PASSWORD']}"


def test_mlflow_lets_in_whom_it_knows_by_the_names_it_knows(machine):
    url = machine.url("mlflow", "/api/2.0/mlflow/experiments/search?max_results=1")
    assert ask(url)[0] == 401
    assert ask(url, "admin:wrong")[0] == 401
    assert ask(url, MLFLOW_USER)[0] == 200
    assert ask(url, MLFLOW_USER, Host="mlflow:5000")[0] == 200
    assert ask(url, MLFLOW_USER, Host="elsewhere.example")[0] == 403


def test_prefect_lets_in_whom_it_knows_and_its_pages_find_the_api(machine):
    url = machine.url("prefect", "/api/flows/count")
    assert ask(url, body={})[0] == 401
    assert ask(url, "admin:wrong", body={})[0] == 401
    assert ask(url, PREFECT_USER, body={}) == (200, 0)
    settings = ask(machine.url("prefect", "/ui-settings"))
    assert settings[1]["api_url"] == machine.url("prefect", "/api")


def test_both_servers_keep_everything_in_postgresql(machine, postgres):
    for name, table in {"compose_mlflow": "experiments", "compose_prefect": "flow_run"}.items():
        psql = [
            postgres.binaries / "psql",
            "--tuples-only",
            "--command",
            f"SELECT 'found' FROM pg_tables WHERE tablename = '{table}'",
        ]
        environment = os.environ | machine.database | {"PGDATABASE": name}
        assert "found" in subprocess.run(psql, env=environment, capture_output=True, text=True, check=True).stdout
    assert not list(machine.folder.rglob("*.db"))


def test_the_worker_deploys_and_is_healthy(machine, fresh, tmp_path):
    project = fresh.copy(tmp_path / "project")
    make, *targets = COMPOSE["services"]["worker"]["command"]
    with ExitStack() as stack:
        process = machine.start(stack, "worker", [make, *INSTALLS_NOTHING, *targets], project.root)
        machine.wait_until_healthy("worker", health_check("worker"), process)
        _, deployments = ask(machine.url("prefect", "/api/deployments/filter"), PREFECT_USER, body={})
        names = {
            deployment["name"] for deployment in YAML(typ="safe").load(project.root / "prefect.yaml")["deployments"]
        }
        assert {deployment["name"] for deployment in deployments} == names
        assert not any(schedule["active"] for deployment in deployments for schedule in deployment["schedules"])


def test_the_serving_image_answers_for_the_champion_in_the_registry(machine, finished):
    log_model = """
import mlflow, onnx
from pipelines.tracking.registry import signature
mlflow.set_experiment("served")
with mlflow.start_run():
    graph = onnx.load("outputs/hybrid/export/model.onnx")
    mlflow.onnx.log_model(graph, name="model", signature=signature(graph), registered_model_name="gcrl")
mlflow.MlflowClient().set_registered_model_alias("gcrl", "champion", "1")
"""
    environment = machine.environment("serve")
    subprocess.run(
        [sys.executable, "-c", log_model], cwd=finished.root, env=environment, capture_output=True, check=True
    )
    assert list((machine.folder / "artifacts").rglob("model.onnx"))  # by way of the server, into its own store
    joined = DOCKERFILE.replace("\\\n", "")
    (serve,) = re.findall(r"^FROM runtime AS serve\n(.*?)^FROM", joined, re.MULTILINE | re.DOTALL)
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.+\])$", serve, re.MULTILINE)
    (command,) = re.findall(r"^CMD (\[.+\])$", serve, re.MULTILINE)
    images = np.load(finished.root / "data/prepared/test.npy")[:3]
    with ExitStack() as stack:
        process = machine.start(stack, "serve", json.loads(command), machine.folder)
        machine.wait_until_healthy("serve", json.loads(check), process)
        code, answer = ask(machine.url("serve", "/invocations"), body={"inputs": {"image": images.tolist()}})
    assert code == 200
    assert np.shape(answer["predictions"]["probabilities"]) == (3, 8)
