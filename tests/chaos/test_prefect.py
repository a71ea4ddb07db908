"""Prefect's server or a worker killed while a flow run is under way: the run ends, and what waits behind it goes on."""

import shlex
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.states import Cancelling, Completed, Running, Scheduled

from tests.e2e.conftest import PARAMS, new_project
from tests.e2e.deployed import CREDENTIALS, MAKE, Site, deployed, ended, propose_pending, start_worker, wait_for

pytestmark = pytest.mark.chaos

HOURLY = "monitor/hourly"  # limit 1, CANCEL_NEW, alone in a queue with limit 1
SETTINGS = {  # how often the server looks, not what it looks for
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER": "PT1S",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "5",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("chaos")
    with deployed(new_project(root / "fresh", PARAMS), root, "ACTIVE=false", **SETTINGS) as site:
        yield site


@pytest.fixture
def client(site: Site) -> Iterator[SyncPrefectClient]:
    with site.client() as client:
        yield client
        for run in client.read_flow_runs():  # the queue is free for the next test
            client.delete_flow_run(run.id)


def new_run(client: SyncPrefectClient, **job_variables: str) -> UUID:
    deployment = client.read_deployment_by_name(HOURLY).id
    return client.create_flow_run_from_deployment(deployment, state=Scheduled(), job_variables=job_variables).id


def taken_run(client: SyncPrefectClient) -> UUID:
    """A run in the state in which a worker submits it: Pending, with its deployment's slot."""
    run = new_run(client)
    assert propose_pending(client, run).type == StateType.PENDING
    assert slots(client) == 1
    return run


def slots(client: SyncPrefectClient) -> int:
    """How many of the deployment's are taken."""
    limit = client.read_deployment_by_name(HOURLY).global_concurrency_limit
    assert limit is not None
    return limit.active_slots


def kill_server(site: Site) -> None:
    server = site.server()
    assert server is not None
    server.kill()
    wait_for(lambda: site.server() is None, "end of the server")


def start_server(site: Site) -> None:
    """As `make deploy` does, without the deploying, which would put the automations' time back."""
    site.run(sys.executable, "-c", f"from pipelines.flows import server; server.start({site.port})")


def run_worker(site: Site) -> str:
    """`make worker` for what is due now; returns what it printed."""
    told = site.run(*MAKE, "worker", "ARGS=--run-once", PREFECT_API_URL=site.url, PREFECT_API_AUTH_STRING=CREDENTIALS)
    return told.stdout


@contextmanager
def database(site: Site) -> Iterator[sqlite3.Connection]:
    """The server's, while it is dead."""
    assert site.server() is None
    with closing(sqlite3.connect(site.home / "prefect.db")) as connection, connection:
        yield connection


@contextmanager
def impatient(client: SyncPrefectClient, name: str) -> Iterator[None]:
    """The automation as deployed, with ten seconds instead of minutes."""
    (held,) = client.read_automations_by_name(name)
    automation = AutomationCore.model_validate(held.model_dump(exclude={"id", "owner_resource"}))
    assert isinstance(automation.trigger, EventTrigger)
    trigger = automation.trigger.model_copy(update={"within": timedelta(seconds=10)})
    client.update_automation(held.id, automation.model_copy(update={"trigger": trigger}))
    try:
        yield
    finally:
        client.update_automation(held.id, automation)


def assert_the_queue_goes_on(client: SyncPrefectClient) -> None:
    """The server hands a new run to a worker, and does not cancel it for want of a slot."""
    assert slots(client) == 0
    run = new_run(client)
    due = client.get_scheduled_flow_runs_for_work_pool("local", work_queue_names=["monitoring"])
    assert [each.flow_run.id for each in due] == [run]
    assert propose_pending(client, run).type == StateType.PENDING


def assert_never_began(client: SyncPrefectClient, run: UUID) -> None:
    state = ended(client, run).state
    assert state is not None
    assert state.type == StateType.CRASHED, state
    assert state.message is not None
    assert "did not begin" in state.message


def with_word(word: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if word in (each.info["cmdline"] or ())]


def test_server_and_worker_killed_in_mid_submission(site, client, tmp_path):
    """The worker has started the run's process, which has not reported yet, when both die: the automation ends it."""
    word = tmp_path.name
    command = shlex.join([sys.executable, "-c", "import time; time.sleep(600)", word])
    with impatient(client, "crash flow runs that never began"):
        worker = start_worker(site, site.project.root)
        try:
            run = new_run(client, command=command)
            wait_for(lambda: with_word(word), "process of the flow run")
            kill_server(site)
        finally:
            worker.kill()
            worker.wait()
            for process in with_word(word):
                process.kill()
        start_server(site)
        assert_never_began(client, run)
        assert_the_queue_goes_on(client)


def test_a_worker_that_starts_ends_what_never_began(site, client):
    """Nobody was there to act for ten minutes: the event that starts the automation's clock died with the server."""
    run = taken_run(client)
    kill_server(site)
    with database(site) as server:
        server.execute("DELETE FROM automation_bucket")
        for table, column, key in (
            ("flow_run", "state_timestamp", "id"),
            ("flow_run_state", "timestamp", "flow_run_id"),
        ):
            earlier = f"strftime('%Y-%m-%d %H:%M:%f', {column}, '-10 minutes') || '000'"
            changed = server.execute(f"UPDATE {table} SET {column} = {earlier} WHERE {key} = ?", (str(run),))
            assert changed.rowcount
    site.deploy("ACTIVE=false")
    next_run = new_run(client)
    told = run_worker(site)
    assert_never_began(client, run)
    assert client.read_flow_run(run).name in told
    # it fails, because nothing has been trained here; it was not cancelled for want of a slot
    state = ended(client, next_run).state
    assert state is not None
    assert state.type == StateType.FAILED, state
    assert slots(client) == 0


def test_a_worker_that_starts_leaves_a_young_one_to_the_automation(site, client):
    """Another worker may be about to start it; if none is, the automation ends it, though its own event is lost."""
    run = taken_run(client)
    kill_server(site)
    with database(site) as server:
        server.execute("DELETE FROM automation_bucket")
    start_server(site)
    with impatient(client, "crash flow runs that never began"):
        assert "never began" not in run_worker(site)
        assert_never_began(client, run)
        assert_the_queue_goes_on(client)


def test_a_run_that_another_worker_has_just_taken(site, client):
    run = taken_run(client)
    run_worker(site)
    state = client.read_flow_run(run).state
    assert state is not None
    assert state.type == StateType.PENDING, state
    client.set_flow_run_state(run, Running())
    client.set_flow_run_state(run, Completed())
    assert_the_queue_goes_on(client)


def test_a_run_at_work_keeps_its_slot_when_the_server_is_killed(site, client):
    """Prefect ends a run that cannot renew its lease."""
    run = taken_run(client)
    state = client.set_flow_run_state(run, Running()).state
    assert state is not None
    lease = state.state_details.deployment_concurrency_lease_id
    assert lease is not None
    kill_server(site)
    site.deploy("ACTIVE=false")
    client.renew_concurrency_lease(lease, 300)
    assert slots(client) == 1
    client.set_flow_run_state(run, Completed())
    assert_the_queue_goes_on(client)


def test_a_machine_that_dies_with_a_run_at_work(site, client):
    """Heartbeats that end before the server is killed: it remembers, and ends the run when it is back."""
    run = taken_run(client)
    client.set_flow_run_state(run, Running())
    beat = (
        "from prefect.events import emit_event; import time; "
        f"emit_event('prefect.flow-run.heartbeat', {{'prefect.resource.id': 'prefect.flow-run.{run}'}}); time.sleep(2)"
    )
    with impatient(client, "crash silent flow runs"):
        site.run(sys.executable, "-c", beat, PREFECT_API_URL=site.url, PREFECT_API_AUTH_STRING=CREDENTIALS)
        kill_server(site)
        start_server(site)
        assert ended(client, run).state_name == "Crashed"
        assert_the_queue_goes_on(client)


def test_a_run_that_is_being_cancelled(site, client):
    """Its worker is dead, and the server is killed while it waits for it."""
    run = taken_run(client)
    client.set_flow_run_state(run, Running())
    state = client.set_flow_run_state(run, Cancelling()).state
    assert state is not None
    assert state.type == StateType.CANCELLING
    kill_server(site)
    start_server(site)
    assert ended(client, run).state_name == "Cancelled"
    assert_the_queue_goes_on(client)
