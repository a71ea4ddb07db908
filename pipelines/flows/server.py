"""This project's own Prefect server: in the background, on this machine alone, with its files in `.prefect/`.

Not by `prefect server start --background`: that one has no log, stays in its terminal's process group, reports success
before the server has started, and refuses to start after a kill; its `stop` ends whatever process has that number now.
"""

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

from components.errors import UserError
from components.files import atomic_file
from pipelines.ports import HOST, check_free
from pipelines.tracking.secrets import without_secrets

PORT = 4200
HOME = Path(".prefect").resolve()
PID_FILE = HOME / "server.pid"  # `prefect server stop` with PREFECT_HOME=.prefect knows it too
LOG = HOME / "server.log"
START_SECONDS = 120.0
STOP_SECONDS = 30.0
DATABASES = ("postgresql+asyncpg://", "sqlite+aiosqlite://")


def api_url(port: int) -> str:
    return f"http://{HOST}:{port}/api"


def running_port() -> int | None:
    """The port of the running server; None if none is running."""
    process = _process()
    if process is None:
        return None
    command = process.cmdline()
    return int(command[command.index("--port") + 1])


def start(port: int | None = None, database: str | None = None) -> tuple[int, bool]:
    """Start the server, unless it is running, and wait until it answers.

    Args:
        port: None for that of the running server, else 4200.
        database: such as `postgresql+asyncpg://user:password@host/name`; None for that of the running server, else a
            SQLite file in `.prefect/`.

    Returns:
        The port, and whether the server was started here and now.

    Raises:
        UserError: the port is taken, the database cannot be reached, or another port or database is in use already.
    """
    if database and not database.startswith(DATABASES):
        raise UserError(f"DATABASE: expected a URL that begins with {' or '.join(DATABASES)}.")
    process = _process()
    if process is not None:
        present = running_port()
        assert present is not None
        if port not in (None, present):
            raise UserError(f"PORT: the server is running on port {present} already. `make undeploy` stops it.")
        if database not in (None, "", process.environ().get("PREFECT_SERVER_DATABASE_CONNECTION_URL")):
            raise UserError("DATABASE: the server is running on another one already. `make undeploy` stops it.")
        _wait_until_healthy(process, present)
        return present, False
    port = PORT if port is None else port
    check_free(
        port,
        f"Take another (make deploy PORT={PORT + 1}), or, where a Prefect server is listening there, deploy to it "
        f"(PREFECT_API_URL={api_url(port)} make deploy).",
    )
    HOME.mkdir(exist_ok=True)
    environment = os.environ | {"PREFECT_HOME": str(HOME), "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"}
    environment.pop("PREFECT_API_URL", None)
    # on disk: Prefect ends a run that cannot renew its lease, because the server has forgotten it with a restart
    environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] = "prefect.server.concurrency.lease_storage.filesystem"
    environment["PREFECT_SERVER_UI_API_URL"] = api_url(port)  # the browser's; else port 4200, whatever --port says
    if database:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    with LOG.open("wb") as log:
        started = psutil.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    with atomic_file(PID_FILE) as temporary:
        temporary.write_text(str(started.pid))
    try:
        _wait_until_healthy(started, port, database or "")
    except BaseException:
        stop()
        raise
    return port, True


def stop() -> bool:
    """Stop the server, if it is running; returns whether it was."""
    process = _process()
    if process is not None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
    PID_FILE.unlink(missing_ok=True)
    return process is not None


def _process() -> psutil.Process | None:
    """The server's process, by the PID file; a process that merely got its number is not taken for it."""
    try:
        process = psutil.Process(int(PID_FILE.read_text()))
        if process.status() != psutil.STATUS_ZOMBIE and "prefect" in process.cmdline():
            return process
    except (OSError, ValueError, psutil.Error):
        pass
    return None


def _wait_until_healthy(process: psutil.Process, port: int, database: str = "") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise UserError(
                f"the Prefect server did not start: {without_secrets(_last_error(), database)} ({LOG} has more)"
            )
        try:
            urllib.request.urlopen(f"{api_url(port)}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise UserError(f"the Prefect server did not answer within {START_SECONDS:.0f} seconds; {LOG} may say why.")


def _last_error() -> str:
    log = LOG.read_text(errors="replace")
    found = re.findall(r"^[\w.]*(?:Error|Exception): .*", log, re.MULTILINE) or log.split("\n")
    return next((line.strip() for line in reversed(found) if line.strip()), "it wrote nothing")
