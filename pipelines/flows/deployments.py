"""What a Prefect server is told of this project: the work pool, the deployments in prefect.yaml, automations."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import UserError
from pipelines.flows import recovery
from pipelines.tracking.secrets import without_password

FILE = Path("prefect.yaml")
POOL = "local"
QUEUES = {"training": 1, "monitoring": 1}  # how many runs at a time; prefect.yaml says which flow goes where


def check_server(client: SyncPrefectClient) -> None:
    """
    Raises:
        UserError: there is no Prefect server at the client's URL, or it does not take the client's credentials.
    """
    address = without_password(str(client.api_url))
    try:
        client.read_work_pools(limit=1)  # unlike /health, this asks for credentials
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise UserError(f"{address}: wrong credentials; PREFECT_API_AUTH_STRING holds user:password.") from error
        raise UserError(f"PREFECT_API_URL: {address} is no Prefect API (HTTP {code}); it ends with /api.") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UserError(
            f"no Prefect server answers at {address}. Start this project's with `make deploy`, or let "
            f"PREFECT_API_URL name the right one."
        ) from error


def check_pool(client: SyncPrefectClient, name: str) -> None:
    """
    Raises:
        UserError: there is no such work pool.
    """
    try:
        client.read_work_pool(name)
    except ObjectNotFound as error:
        known = ", ".join(sorted(pool.name for pool in client.read_work_pools())) or "none"
        raise UserError(
            f"work pool {name!r} does not exist. `make deploy` creates {POOL!r}; any other you create: prefect "
            f"work-pool create {name} --type TYPE. There is: {known}."
        ) from error


def read_file() -> list[dict[str, Any]]:
    """The deployments in prefect.yaml, as written.

    Raises:
        UserError: it cannot be read, or two deployments have the same name, of which the later would replace the other.
    """
    try:
        deployments: list[dict[str, Any]] = YAML(typ="safe").load(FILE)["deployments"]
        names = Counter(_full_name(deployment) for deployment in deployments)
    except (OSError, YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{FILE}: expected a list `deployments`, each with name and entrypoint: {error!r}") from error
    for name, count in names.items():
        if count > 1:
            raise UserError(f"{FILE}: {count} deployments are called {name}; give each a name of its own.")
    return deployments


def deploy(client: SyncPrefectClient) -> None:
    """Create or update work pool, queues, deployments and automations; may be repeated.

    Raises:
        UserError: prefect.yaml is wrong. What can be checked is, before anything is changed.
    """
    deployments = read_file()
    for pool in sorted({deployment["work_pool"]["name"] for deployment in deployments} - {POOL}):
        check_pool(client, pool)
    _ensure_pool(client)
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"prefect deploy: {_last_words(done.stdout + done.stderr)}")
    recovery.ensure_automations(client, POOL)


def overview(client: SyncPrefectClient) -> Iterator[str]:
    """One line a deployment, from what the server holds: its schedule and the next run."""
    for deployment in read_file():
        name = _full_name(deployment)
        known = client.read_deployment_by_name(name)
        for schedule in known.schedules:
            yield f"{name:22}{_schedule(schedule.schedule, schedule.active and not known.paused)}"
        if not known.schedules:
            yield f"{name:22}prefect deployment run {name}"


def _full_name(deployment: dict[str, Any]) -> str:
    """`flow/deployment`; in this project a flow is called like its function."""
    return f"{deployment['entrypoint'].rpartition(':')[2]}/{deployment['name']}"


def _ensure_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
    for name, limit in QUEUES.items():
        try:
            queue = client.read_work_queue_by_name(name, work_pool_name=POOL)
        except ObjectNotFound:
            client.create_work_queue(name, concurrency_limit=limit, work_pool_name=POOL)
        else:
            client.update_work_queue(queue.id, concurrency_limit=limit)


def _schedule(schedule: object, active: bool) -> str:
    if not isinstance(schedule, CronSchedule):
        return str(schedule)
    text = f"{schedule.cron:13}{schedule.timezone or 'UTC'}  "
    return text + (f"next {_next_run(schedule):%Y-%m-%d %H:%M}" if active else "paused")


def _next_run(schedule: CronSchedule) -> datetime:
    from prefect.server.schemas.schedules import CronSchedule as ServerSchedule  # the client's knows no dates

    return asyncio.run(ServerSchedule(cron=schedule.cron, timezone=schedule.timezone).get_dates(1))[0]


def _last_words(output: str) -> str:
    lines = [line.strip(" │╭╮╰╯─") for line in output.splitlines()]
    return next((line for line in reversed(lines) if line), "failed without a word")
