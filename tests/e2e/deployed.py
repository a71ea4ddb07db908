"""A throw-away project with a Prefect server of its own, which its `make deploy` has started."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Pending

CREDENTIALS = "admin:throw-away"
INSTALLS_NOTHING = (*(f"--old-file={sys.prefix}/{name}" for name in ("main.stamp", "bin/gcrl")), f"VENV={sys.prefix}")
MAKE = ("make", "--no-print-directory", *INSTALLS_NOTHING)


@dataclass(frozen=True)
class Site:
    """A project, and the server that its `make deploy` is about."""

    project: Any  # Project of conftest.py
    port: int
    settings: dict[str, str]

    def run(self, *command: str, code: int | None = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.project.root,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def deploy(self, *variables: str, code: int | None = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        """The real `make deploy`."""
        return self.run(*MAKE, "deploy", *variables, code=code, **settings)

    @property
    def environment(self) -> dict[str, str]:
        return without_prefect(self.project.environment) | {"PORT": str(self.port)} | self.settings

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def home(self) -> Path:
        return Path(self.project.root / ".prefect")

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        auth = self.settings.get("PREFECT_SERVER_API_AUTH_STRING")
        with (
            temporary_settings({PREFECT_API_URL: self.url, PREFECT_API_AUTH_STRING: auth}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def server(self) -> psutil.Process | None:
        """The process that listens on the port."""
        for process in psutil.process_iter(["cmdline"]):
            if {"prefect", "server", str(self.port)} <= set(process.info["cmdline"] or ()):
                return process
        return None


def without_prefect(environment: dict[str, str]) -> dict[str, str]:
    own = ("PORT", "DATABASE", "ACTIVE", "TIMEZONE", "ARGS")
    return {name: value for name, value in environment.items() if not name.startswith("PREFECT_") and name not in own}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def deployed(project: Any, root: Path, *variables: str, **settings: str) -> Iterator[Site]:
    """A copy of a project in this folder after `make deploy` from nothing: SQLite, and a server that asks for
    credentials. What it printed is in deploy.log beside it. `settings` are Prefect's, of server and workers."""
    settings |= {"PREFECT_SERVER_API_AUTH_STRING": CREDENTIALS}
    site = Site(project.copy(root / "project"), free_port(), settings)
    (root / "deploy.log").write_text(site.deploy(*variables).stdout)
    yield site
    assert "stopped" in site.run(*MAKE, "undeploy").stdout
    assert site.server() is None


def start_worker(site: Site, folder: Path) -> psutil.Process:
    """`make worker` in another folder than the server's; returns the process that polls."""
    environment = site.environment | {"PREFECT_API_URL": site.url, "PREFECT_API_AUTH_STRING": CREDENTIALS}
    command = [sys.executable, "-m", "pipelines", "worker"]
    return psutil.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(find: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"no {what} after {seconds} seconds"
        time.sleep(0.1)
    return found


def ended(client: SyncPrefectClient, run: UUID) -> FlowRun:
    def find() -> FlowRun | None:
        found = client.read_flow_run(run)
        return found if found.state is not None and found.state.is_final() else None

    result: FlowRun = wait_for(find, "end of the flow run")
    return result


def propose_pending(client: SyncPrefectClient, run: UUID) -> Any:
    """What a worker does before it starts a run; returns the state that the server gives it instead, or that one."""
    return client.set_flow_run_state(run, Pending()).state
