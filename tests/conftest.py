"""Which tests run, and servers for the session: a throw-away PostgreSQL from Debian's package, MLflow's, Prefect's."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

PASSWORD = "throw-away"
SERVERS = {"postgres", "listening", "prefect_server", "server"}  # fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--weekly", action="store_true", help="also run the tests that are marked weekly")


def pytest_configure() -> None:
    """Ctrl-C is tested in processes that inherit whether it is ignored, as it is where a shell starts this with `&`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that start a server by their fixtures, and leave out the weekly ones unless they are asked for."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("server")
    if not config.getoption("--weekly"):
        weekly = [item for item in items if item.get_closest_marker("weekly")]
        config.hook.pytest_deselected(items=weekly)
        items[:] = [item for item in items if item not in weekly]


@pytest.fixture(scope="session")
def made_once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Path], None]], Path]:
    """`made_once(name, make)` is a folder that `make(folder)` has filled in whichever of xdist's workers came first."""
    own = tmp_path_factory.getbasetemp()
    root = own if worker_id == "master" else own.parent

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder, made = root / name, root / f"{name}.made"
        with FileLock(root / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return once


@dataclass(frozen=True)
class Postgres:
    """A running cluster on 127.0.0.1, its superuser being `postgres`."""

    binaries: Path
    port: int

    def database(self, name: str) -> str:
        """Create a database; returns its URL, `postgresql://user:password@host:port/name`."""
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres", "PGPASSWORD": PASSWORD}
        subprocess.run([self.binaries / "createdb", name], env=os.environ | where, check=True)
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL under /usr/lib/postgresql (Debian's package postgresql)")
    binaries = max(found, key=lambda path: int(re.sub(r"\D", "", path.parts[4]))).parent
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # not below pytest's own, which only this user may enter
    user = None
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*command: str | Path) -> None:
        done = subprocess.run(command, user=user, cwd=folder, stdout=log, stderr=log, timeout=60)
        assert done.returncode == 0, (folder / "log").read_text()

    control = [binaries / "pg_ctl", f"--pgdata={folder / 'data'}", "--wait"]
    try:
        with (folder / "log").open("wb") as log:
            (folder / "password").write_text(PASSWORD)
            (folder / "password").chmod(0o644)
            run(
                *(binaries / "initdb", f"--pgdata={folder / 'data'}", "--username=postgres", "--no-sync"),
                *("--auth=scram-sha-256", f"--pwfile={folder / 'password'}"),
            )
            options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
            run(*control, "start", f"--options={options} -c max_connections=200")
            yield Postgres(binaries, port)
    finally:
        with suppress(subprocess.CalledProcessError):
            subprocess.run([*control, "stop", "--mode=immediate"], user=user, cwd=folder, capture_output=True)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """`listening(folder, "server", …, VARIABLE=…)` starts `mlflow server …` there; returns its address once it answers.

    The servers end with the session.
    """
    running: list[subprocess.Popen[bytes]] = []

    def start(folder: Path, *command: str, **variables: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = tmp_path_factory.mktemp("server") / "log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)],
                **{"stdout": output, "stderr": output, "start_new_session": True, "cwd": folder},
                env=kept | own | variables,
            )
        running.append(process)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                return f"http://127.0.0.1:{port}"
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        raise TimeoutError(log.read_text())

    yield start
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all tests: a process goes on sending its events to the first server that it used."""
    from prefect.settings import PREFECT_HOME, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect")
    with temporary_settings({PREFECT_HOME: home}), prefect_test_harness(server_startup_timeout=60):
        yield
