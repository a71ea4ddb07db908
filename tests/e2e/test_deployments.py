"""`make deploy` and `make worker`: real servers on SQLite and PostgreSQL, and real workers."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Scheduled
from ruamel.yaml import YAML

pytestmark = pytest.mark.e2e

CREDENTIALS = "admin:throw-away"
MAKE = ("make", "--no-print-directory", f"--old-file={sys.prefix}/main.stamp", f"VENV={sys.prefix}")  # installs nothing
ZONE = "Europe/Berlin"


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


@contextmanager
def http_server() -> Iterator[int]:
    """A server that is not Prefect's; yields its port."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def site(finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The finished project after `make deploy` from nothing: SQLite, and a server that asks for credentials."""
    root = tmp_path_factory.mktemp("deployed") / "project"
    site = Site(finished.copy(root), free_port(), {"PREFECT_SERVER_API_AUTH_STRING": CREDENTIALS})
    told = site.deploy("ACTIVE=true", f"TIMEZONE={ZONE}").stdout
    (root.parent / "deploy.log").write_text(told)
    yield site
    assert "stopped" in site.run(*MAKE, "undeploy").stdout
    assert site.server() is None


def as_written() -> list[dict[str, Any]]:
    """The deployments in prefect.yaml, with what `site` was deployed with filled in."""
    text = (Path(__file__).parents[2] / "prefect.yaml").read_text()
    file = YAML(typ="safe").load(text.replace('"{{ $ACTIVE }}"', "true").replace("{{ $TIMEZONE }}", ZONE))
    assert set(file) == {"name", "pull", "deployments"}
    deployments: list[dict[str, Any]] = [{"pull": file["pull"]} | deployment for deployment in file["deployments"]]
    return deployments


def as_held(client: SyncPrefectClient, full_name: str) -> dict[str, Any]:
    """The same keys, from the server. One that Prefect does not know is missing here."""
    held = client.read_deployment_by_name(full_name)
    automations = client.read_resource_related_automations(f"prefect.deployment.{held.id}")
    assert held.global_concurrency_limit is not None
    assert held.concurrency_options is not None
    return {
        "name": held.name,
        "entrypoint": held.entrypoint,
        "description": held.description,
        "tags": held.tags,
        "parameters": held.parameters,
        "pull": held.pull_steps,
        "concurrency_limit": {
            "limit": held.global_concurrency_limit.limit,
            "collision_strategy": held.concurrency_options.collision_strategy.value,
        },
        "work_pool": {"name": held.work_pool_name, "work_queue_name": held.work_queue_name},
        "schedules": [
            {"slug": each.slug, "active": each.active, "parameters": each.parameters} | each.schedule.model_dump()
            for each in held.schedules
        ],
        "triggers": [
            {
                **{"name": each.name, "description": each.description, "enabled": each.enabled},
                **each.trigger.model_dump(mode="json"),
                "parameters": each.actions[0].parameters,
            }
            for each in automations
            if each.actions[0].deployment_id == held.id
        ],
    }


def pick(written: Any, held: Any) -> Any:
    """What is held, but of mappings only the keys that are written."""
    if isinstance(written, dict) and isinstance(held, dict):
        return {key: pick(written[key], held[key]) if key in held else "ignored by Prefect" for key in written}
    if isinstance(written, list) and isinstance(held, list) and len(written) == len(held):
        return [pick(*pair) for pair in zip(written, held, strict=True)]
    return held


@pytest.mark.parametrize("written", as_written(), ids=lambda deployment: deployment["name"])
def test_every_key_of_the_file_arrives_as_written(site, written):
    with site.client() as client:
        held = as_held(client, f"{written['entrypoint'].partition(':')[2]}/{written['name']}")
    assert pick(written, held) == written


def test_deploying_tells_what_is_there(site):
    told = (site.project.root.parent / "deploy.log").read_text()
    assert f"http://127.0.0.1:{site.port}\n" in told
    crons = {"retrain/nightly": "0 2 * * *", "sweep/weekly": "0 4 * * 0", "monitor/hourly": "15 * * * *"}
    for name, cron in crons.items():
        (line,) = [line for line in told.splitlines() if name in line]
        assert cron in line
        assert f"{ZONE}  next 20" in line
    assert "prefect deployment run reproduce/on-demand" in told
    assert "make worker" in told


def test_its_pages_find_the_api(site):
    with urlopen(f"http://127.0.0.1:{site.port}/ui-settings", timeout=30) as answer:
        assert json.load(answer)["api_url"] == site.url


def test_a_second_time_changes_what_was_asked_and_nothing_else(site):
    def state(client: SyncPrefectClient) -> Any:
        deployments = client.read_deployments()
        return (
            {deployment.id for deployment in deployments},
            {schedule.id for deployment in deployments for schedule in deployment.schedules},
            sorted(automation.name for automation in client.read_automations()),
            {queue.id: queue.concurrency_limit for queue in client.read_work_queues()},
        )

    with site.client() as client:
        before = state(client)
        told = site.deploy("ACTIVE=false").stdout
        assert state(client) == before
        assert {1} <= set(before[3].values())
        assert before[2] == ["crash silent flow runs", "retrain on drift"]
        schedules = [schedule for deployment in client.read_deployments() for schedule in deployment.schedules]
        assert [schedule.active for schedule in schedules] == [False] * 3
        assert {schedule.schedule.timezone for schedule in schedules} == {"UTC"}
        (drift,) = client.read_automations_by_name("retrain on drift")
        assert not drift.enabled
    assert told.count("paused") == 3


def scheduled_run(client: SyncPrefectClient, full_name: str) -> FlowRun:
    """Give a deployment a schedule that begins in a few seconds; returns the first run that the server makes of it."""
    deployment = client.read_deployment_by_name(full_name)
    first = datetime.now(UTC) + timedelta(seconds=8)
    period = timedelta(seconds=20)  # a slow server may miss the first
    schedule = IntervalSchedule(interval=period, anchor_date=first)
    client.create_deployment_schedules(deployment.id, [(schedule, True)])
    mine = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))

    def find() -> FlowRun | None:
        runs = client.read_flow_runs(deployment_filter=mine)
        return min(runs, key=lambda run: run.expected_start_time, default=None)

    run: FlowRun = wait_for(find, "scheduled run")
    assert run.auto_scheduled
    assert (run.expected_start_time - first).total_seconds() % period.total_seconds() == 0
    return run


def assert_a_scheduled_run_comes_to_its_end(site: Site) -> None:
    files = site.project.files()
    with site.client() as client:
        run = scheduled_run(client, "reproduce/on-demand")
        time.sleep(max(0.0, (run.expected_start_time - datetime.now(UTC)).total_seconds()))
        told = site.run(*MAKE, "worker", "ARGS=--run-once")
        done = ended(client, run.id)
        assert done.deployment_id is not None
        for schedule in client.read_deployment(done.deployment_id).schedules:
            client.delete_deployment_schedule(done.deployment_id, schedule.id)
    assert done.state_name == "Completed", f"{done.state}\n{told.stdout}{told.stderr}"
    assert done.state.message is not None
    assert "cached" in done.state.message
    assert "failed" not in done.state.message
    assert site.project.files() == files


def test_a_worker_runs_what_is_scheduled(site):
    assert_a_scheduled_run_comes_to_its_end(site)


def test_drift_starts_retrain_while_the_nightly_one_is_at_work(site):
    """It waits for its place in the queue instead of being cancelled: monitor does not tell of the images again."""
    event = (
        "from prefect.events import emit_event; import time; resource = {'prefect.resource.id': 'gcrl.model.gcrl'}; "
        "emit_event('gcrl.drift.detected', resource, payload={'incoming': 'arrivals'}); time.sleep(1)"
    )
    retrain = FlowFilter(name=FlowFilterName(any_=["retrain"]))
    with site.client() as client:
        (drift,) = client.read_automations_by_name("retrain on drift")
        client.resume_automation(drift.id)
        nightly = client.create_flow_run_from_deployment(
            client.read_deployment_by_name("retrain/nightly").id, state=Scheduled()
        )
        assert propose_pending(client, nightly.id).name == "Pending"
        site.run(sys.executable, "-c", event, PREFECT_API_URL=site.url, PREFECT_API_AUTH_STRING=CREDENTIALS)

        def find() -> FlowRun | None:
            manual = (run for run in client.read_flow_runs(flow_filter=retrain) if not run.auto_scheduled)
            return next((run for run in manual if run.id != nightly.id), None)

        run = wait_for(find, "run of retrain")
        assert run.parameters["incoming"] == "arrivals"
        assert run.created_by.display_value == "retrain on drift"
        assert propose_pending(client, run.id).name == "Pending"
        for each in (run, nightly):
            client.delete_flow_run(each.id)


@pytest.mark.parametrize(
    ("full_name", "second", "message"),
    [
        ("retrain/nightly", "Cancelled", "Deployment concurrency limit reached."),
        ("retrain/on-drift", "AwaitingConcurrencySlot", None),
        ("reproduce/on-demand", "AwaitingConcurrencySlot", None),
    ],
)
def test_a_run_beside_another_of_its_kind(site, full_name, second, message):
    with site.client() as client:
        deployment = client.read_deployment_by_name(full_name)
        runs = [client.create_flow_run_from_deployment(deployment.id, state=Scheduled()).id for _ in range(2)]
        assert propose_pending(client, runs[0]).name == "Pending"
        propose_pending(client, runs[1])
        state = client.read_flow_run(runs[1]).state
        assert state is not None
        assert state.name == second
        assert message is None or state.message == message
        for run in runs:
            client.delete_flow_run(run)


# a worker that is killed


def start_worker(site: Site, folder: Path) -> psutil.Process:
    """`make worker` in another folder than the server's; returns the process that polls."""
    environment = site.environment | {"PREFECT_API_URL": site.url, "PREFECT_API_AUTH_STRING": CREDENTIALS}
    command = [sys.executable, "-m", "pipelines.flows.deploy", "worker"]
    return psutil.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def at_work_in(folder: Path) -> list[psutil.Process]:
    """The processes whose working directory is this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder):
                found.append(process)
    return found


def test_a_worker_killed_in_mid_training(site, finished, tmp_path):
    """The run has crashed, nothing is left at work, and the next run goes on to the same model, bit for bit."""
    steps = 300
    projects = [finished.copy(tmp_path / name) for name in ("whole", "killed")]
    for project in projects:
        project.edit({"training.steps": steps, "training.checkpoint_seconds": 0})
    whole, killed = (project.root for project in projects)
    projects[0].dvc("repro", "--single-item", "pretrain@hybrid")

    with site.client() as client:
        deployment = client.read_deployment_by_name("reproduce/on-demand").id
        parameters = {"targets": ["pretrain@hybrid"]}

        def new_run() -> UUID:
            return client.create_flow_run_from_deployment(deployment, parameters=parameters, state=Scheduled()).id

        run = new_run()
        worker = start_worker(site, killed)
        try:
            wait_for(lambda: list((killed / ".scratch").glob("*/resume.pt")), "resume file")
        finally:
            worker.kill()
            worker.wait()
        assert ended(client, run).state_name == "Crashed"
        wait_for(lambda: not at_work_in(killed), "end of all processes")
        assert not (killed / "outputs/hybrid/pretrain").exists()
        (resume,) = (killed / ".scratch").glob("*/resume.pt")

        run = new_run()
        worker = start_worker(site, killed)
        try:
            assert ended(client, run).state_name == "Completed"
        finally:
            worker.kill()  # told to end while a run's process is just ending, Prefect's worker may wait for ever
            worker.wait()
    assert not resume.exists()
    weights = "outputs/hybrid/pretrain/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()


# mistakes


@pytest.fixture
def alone(fresh, tmp_path: Path) -> Site:
    """A project whose server is not running; not to be changed."""
    (tmp_path / "project").mkdir()
    for name in ("pipelines", "components", "Makefile", "prefect.yaml"):
        (tmp_path / "project" / name).symlink_to(fresh.root / name)
    return Site(type(fresh)(tmp_path / "project"), free_port(), {})


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode != 0
    assert done.stdout == ""
    message, make = done.stderr.splitlines()
    assert message.startswith("error: "), done.stderr
    assert make.startswith("make: ***")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("command", "variables", "parts"),
    [
        ("deploy", ["ACTIVE=yes"], ["ACTIVE: expected true or false, found 'yes'"]),
        ("deploy", ["TIMEZONE=Europe/Atlantis"], ["TIMEZONE: no time zone 'Europe/Atlantis'", "Europe/Berlin"]),
        ("deploy", ["PORT=http"], ["PORT: expected a number from 1 to 65535, found 'http'"]),
        ("deploy", ["DATABASE=postgresql://localhost/x"], ["DATABASE: expected a URL", "postgresql+asyncpg://"]),
        ("deploy", ["PREFECT_API_URL=http://127.0.0.1:9/api"], ["no Prefect server answers at http://127.0.0.1:9/api"]),
        ("worker", ["PREFECT_API_URL=http://127.0.0.1:9/api"], ["no Prefect server answers at http://127.0.0.1:9/api"]),
        ("worker", [], ["no Prefect server is running here", "make deploy", "PREFECT_API_URL"]),
    ],
)
def test_mistakes_without_a_server(alone, command, variables, parts):
    assert_refused(alone.run(*MAKE, command, *variables, code=None), *parts)
    assert not alone.home.exists()


def test_a_port_that_is_taken(alone):
    with socket.create_server(("127.0.0.1", alone.port)):
        assert_refused(alone.deploy(code=None), f"PORT: port {alone.port} cannot be had", "make deploy PORT=")
    assert not alone.home.exists()


def test_a_database_that_cannot_be_reached(alone):
    database = "postgresql+asyncpg://someone:secret@127.0.0.1:9/prefect"
    done = alone.deploy(f"DATABASE={database}", code=None)
    assert_refused(done, "the Prefect server did not start: ConnectionRefusedError", "server.log")
    assert "secret" not in done.stderr
    assert alone.server() is None
    assert not (alone.home / "server.pid").exists()
    assert "no Prefect server was running" in alone.run(*MAKE, "undeploy").stdout


def test_wrong_credentials(site):
    for command in ("deploy", "worker"):
        told = site.run(*MAKE, command, code=None, PREFECT_API_URL=site.url, PREFECT_API_AUTH_STRING="admin:guess")
        assert_refused(told, "wrong credentials", "PREFECT_API_AUTH_STRING", site.url)


def test_a_server_that_is_not_prefects(alone):
    with http_server() as port:
        told = alone.deploy(f"PREFECT_API_URL=http://127.0.0.1:{port}/api", code=None)
    assert_refused(told, "no Prefect API (HTTP 501)", "PREFECT_API_URL")


def test_another_port_or_database_than_the_running_servers(site):
    assert_refused(site.deploy("PORT=4299", code=None), f"running on port {site.port} already", "make undeploy")
    other = "DATABASE=sqlite+aiosqlite:////nowhere/prefect.db"
    assert_refused(site.deploy(other, code=None), "DATABASE: the server is running on another", "make undeploy")
    assert site.server() is not None


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("name: local", "name: gpu-farm", ["work pool 'gpu-farm' does not exist", "work-pool create gpu-farm"]),
        ("name: hourly", "entrypoint: pipelines/flows/monitor.py:monitor", ["prefect.yaml", "name"]),
        ("deployments:", "deployment:", ["prefect.yaml: expected a list `deployments`"]),
        (
            "name: hourly\n    entrypoint: pipelines/flows/monitor.py:monitor",
            "name: nightly\n    entrypoint: pipelines/flows/retrain.py:retrain",
            ["prefect.yaml: 2 deployments are called retrain/nightly"],
        ),
    ],
)
def test_mistakes_in_the_file_change_nothing(site, old, new, parts):
    path = site.project.root / "prefect.yaml"
    text = path.read_text()
    with site.client() as client:
        before = {deployment.id: deployment.updated for deployment in client.read_deployments()}
        path.write_text(text.replace(old, new))
        try:
            assert_refused(site.deploy(code=None), *parts)
        finally:
            path.write_text(text)
        assert {deployment.id: deployment.updated for deployment in client.read_deployments()} == before
    assert site.server() is not None  # it was running before


def test_a_worker_for_a_pool_that_does_not_exist(site):
    told = site.run(*MAKE, "worker", "ARGS=--pool gpu-farm", code=None)
    assert_refused(told, "work pool 'gpu-farm' does not exist", "There is: local")


# PostgreSQL


def test_on_postgresql(finished, tmp_path, postgres):
    database = postgres.database("prefect").replace("postgresql://", "postgresql+asyncpg://")
    site = Site(finished.copy(tmp_path / "project"), free_port(), {})
    try:
        site.deploy("ACTIVE=false", DATABASE=database)
        assert not (site.home / "prefect.db").exists()
        assert_a_scheduled_run_comes_to_its_end(site)
    finally:
        site.run(*MAKE, "undeploy")
