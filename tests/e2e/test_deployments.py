"""`make deploy`: what a real server then holds, and which mistakes are told."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore
from ruamel.yaml import YAML

from tests.e2e.deployed import MAKE, Site, deployed, free_port

pytestmark = pytest.mark.e2e

ZONE = "Europe/Berlin"


@contextmanager
def http_server() -> Iterator[int]:
    """A server that is not Prefect's; yields its port."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def site(finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The finished project, deployed with its schedules at work."""
    with deployed(finished, tmp_path_factory.mktemp("deployed"), "ACTIVE=true", f"TIMEZONE={ZONE}") as site:
        yield site


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
        assert before[2] == ["crash flow runs that never began", "crash silent flow runs", "retrain on drift"]
        schedules = [schedule for deployment in client.read_deployments() for schedule in deployment.schedules]
        assert [schedule.active for schedule in schedules] == [False] * 3
        assert {schedule.schedule.timezone for schedule in schedules} == {"UTC"}
        (drift,) = client.read_automations_by_name("retrain on drift")
        assert not drift.enabled
    assert told.count("paused") == 3


def test_automations_that_are_as_they_should_be_are_left_alone(site):
    """With an update the server would forget which flow runs it is watching: the watch belongs to the trigger's id."""

    def triggers(client: SyncPrefectClient) -> dict[str, str]:
        answer = client.request("POST", "/automations/filter", json={}).json()
        return {each["name"]: each["trigger"]["id"] for each in answer if each["name"].startswith("crash ")}

    with site.client() as client:
        before = triggers(client)
        assert len(before) == 2
        site.deploy()
        assert triggers(client) == before
        (known,) = client.read_automations_by_name("crash silent flow runs")
        other = known.model_dump(exclude={"id", "owner_resource"}) | {"description": "of another time"}
        client.update_automation(known.id, AutomationCore.model_validate(other))
        site.deploy()
        (mended,) = client.read_automations_by_name(known.name)
        assert mended.description == known.description


def test_a_proxy_in_the_environment(alone):
    """It is for other machines: this one is never asked through it."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    settings = dict.fromkeys((*proxies, *map(str.upper, proxies)), "http://127.0.0.1:9") | {
        "no_proxy": "",
        "NO_PROXY": "",
    }
    try:
        alone.deploy("ACTIVE=false", **settings)
        alone.run(*MAKE, "worker", "ARGS=--run-once", **settings)
    finally:
        alone.run(*MAKE, "undeploy")
    alone.run(*MAKE, "flow", "ARGS=targets=[sources]", **settings)  # with a server of its own


# mistakes


@pytest.fixture
def alone(fresh, tmp_path: Path) -> Site:
    """A project whose server is not running."""
    return Site(fresh.copy(tmp_path / "project"), free_port(), {})


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


def test_settings_that_are_not_committed(alone):
    alone.project.edit({"seed": 7})
    assert_refused(
        alone.deploy(code=None), "params.yaml: changed since the last commit", "git commit params.yaml dvc.lock"
    )
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
