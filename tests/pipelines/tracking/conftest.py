"""A real MLflow: SQLite stores in temporary folders, and servers that a test may kill and start again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.tracking import Delivery, Journal, deliver


class Server:
    """An `mlflow server` process on a free port of this machine, with its own store."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self.store = f"sqlite:///{folder / 'server.db'}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.store, "--artifacts-destination", str(self.folder / "files")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", "1"], stdout=log, stderr=log, start_new_session=True, env=environment
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1)
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
        raise TimeoutError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """SIGKILL the server and its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow-server")
    shutil.copy(empty_store, folder / "server.db")
    server = Server(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tracking folder of a project in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".tracking"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """A SQLite store that tests share; each looks for its own run keys."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store') / 'mlflow.db')}"


@pytest.fixture
def send(root: Path, store: str) -> Callable[..., Delivery]:
    """Deliver what waits to the shared SQLite store."""
    return lambda **options: deliver(store, root=root, **options)


@pytest.fixture
def client(store: str) -> MlflowClient:
    return MlflowClient(store, store)


@pytest.fixture
def journal(root: Path) -> Journal:
    return Journal.start("pretrain", "hybrid", params={"steps": 10}, root=root)


@pytest.fixture
def another_model(onnx_file: Path, tmp_path: Path) -> Callable[[], Path]:
    """The tiny model as a file that no other test or call has: a version of its own."""
    import onnx

    def another() -> Path:
        model = onnx.load(onnx_file)
        model.doc_string = uuid.uuid4().hex
        onnx.save(model, tmp_path / f"{model.doc_string}.onnx")
        return tmp_path / f"{model.doc_string}.onnx"

    return another
