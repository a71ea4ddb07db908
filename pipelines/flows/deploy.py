"""Bring prefect.yaml to a Prefect server, and run what is due there.

Without PREFECT_API_URL it is this project's own server, which `deploy` starts in the background.
"""

import os
import sys
import zoneinfo
from collections.abc import Sequence
from pathlib import Path

from components.errors import UserError
from pipelines.config.params import PARAMS
from pipelines.config.presets import PRESETS
from pipelines.flows import server
from pipelines.flows.commit import last_commit, uncommitted
from pipelines.tracking.secrets import is_readable, without_password

URL = "PREFECT_API_URL"
AUTH = "PREFECT_API_AUTH_STRING"


def deploy() -> None:
    """Deploy to PREFECT_API_URL, or to a server started here; one that was started for it does not survive a failure.

    Environment: PORT and DATABASE of the own server; ACTIVE (true or false) and TIMEZONE of the schedules.

    Raises:
        UserError: one of these, or prefect.yaml, is wrong, settings are not committed, or the server is not to be had.
    """
    os.environ["ACTIVE"] = _active(os.environ.get("ACTIVE") or "true")
    os.environ["TIMEZONE"] = _timezone(os.environ.get("TIMEZONE") or "UTC")
    check_committed(Path.cwd())
    started = False
    if own := not _given_server():
        port, started = server.start(_port(), os.environ.get("DATABASE"))
        _use_own(port)
    try:
        from prefect.client.orchestration import get_client

        from pipelines.flows import deployments

        with get_client(sync_client=True) as client:
            deployments.check_server(client)
            deployments.deploy(client)
            print(f"Prefect: {without_password(os.environ[URL]).removesuffix('/api')}")
            for line in deployments.overview(client):
                print(f"  {line}")
    except BaseException:
        if started:
            server.stop()
        raise
    print("`make worker` runs what is due.")
    if own:
        print(f"`make undeploy` stops the server; it writes to {server.LOG}.")


def check_committed(project: Path) -> None:
    """Scheduled runs take the last commit: settings that differ from it are refused, other changes told.

    Raises:
        UserError: params.yaml or a preset is not as committed, or there is no commit.
    """
    last_commit(project)
    changed = uncommitted(project)
    settings = [file for file in changed if Path(file) == PARAMS or PRESETS in Path(file).parents]
    if settings:
        raise UserError(
            f"{', '.join(settings)}: changed since the last commit, and scheduled runs take the last commit. "
            f"Commit first, with dvc.lock: git commit {' '.join(settings)} dvc.lock"
        )
    if changed:
        told = ", ".join(changed)
        print(f"warning: scheduled runs take the last commit, without your changes in {told}", file=sys.stderr)


def worker(pool: str | None, options: Sequence[str]) -> None:
    """Become a Prefect worker of type process for this folder.

    Raises:
        UserError: there is no such work pool, or no server.
    """
    if not _given_server():
        port = server.running_port()
        if port is None:
            raise UserError(f"no Prefect server is running here. Start it with `make deploy`, or set {URL}.")
        _use_own(port)
    from prefect.client.orchestration import get_client

    from pipelines.flows import deployments, recovery

    pool = pool or deployments.POOL
    with get_client(sync_client=True) as client:
        deployments.check_server(client)
        deployments.check_pool(client, pool)
        for run in recovery.end_unstarted(client, pool):
            print(f"flow run {run.name} never began: it is shown as Crashed, and its place is free", flush=True)
    os.environ["PIPELINE_PROJECT"] = str(Path.cwd())
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(recovery.HEARTBEAT_SECONDS))
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    os.execv(sys.executable, [*command, "--no-create-pool-if-not-found", *options])


def _given_server() -> bool:
    """Whether a server is named; one whose address no client could read is refused."""
    address = os.environ.get(URL, "")
    if not is_readable(address):
        raise UserError(
            f"{URL}: {without_password(address)} cannot be read as an address. Write special characters of name and "
            f"password as %40 (for @), %2F (/), %23 (#), %3F (?), or give them in {AUTH}, which holds user:password."
        )
    return bool(address)


def _use_own(port: int) -> None:
    """Settings for Prefect's client, which reads them when it is imported."""
    os.environ["PREFECT_HOME"] = str(server.HOME)
    os.environ[URL] = server.api_url(port)
    if server_auth := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        os.environ.setdefault(AUTH, server_auth)


def _port() -> int | None:
    given = os.environ.get("PORT")
    if not given:
        return None
    if not given.isdecimal() or not 0 < int(given) < 2**16:
        raise UserError(f"PORT: expected a number from 1 to 65535, found {given!r}.")
    return int(given)


def _active(given: str) -> str:
    if given not in ("true", "false"):
        raise UserError(f"ACTIVE: expected true or false, found {given!r}.")
    return given


def _timezone(given: str) -> str:
    if given not in zoneinfo.available_timezones():
        raise UserError(f"TIMEZONE: no time zone {given!r}; expected a name such as UTC or Europe/Berlin.")
    return given
