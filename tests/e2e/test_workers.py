"""`make worker`: what is scheduled, started by an event, or killed, on real servers with SQLite and PostgreSQL."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.states import Scheduled

from tests.e2e.deployed import (
    CREDENTIALS,
    MAKE,
    Site,
    deployed,
    ended,
    free_port,
    propose_pending,
    start_worker,
    wait_for,
)

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The finished project, deployed with its schedules paused: what is due is up to the tests."""
    with deployed(finished, tmp_path_factory.mktemp("deployed"), "ACTIVE=false") as site:
        yield site


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


def test_on_postgresql(finished, tmp_path, postgres):
    database = postgres.database("prefect").replace("postgresql://", "postgresql+asyncpg://")
    site = Site(finished.copy(tmp_path / "project"), free_port(), {})
    try:
        site.deploy("ACTIVE=false", DATABASE=database)
        assert not (site.home / "prefect.db").exists()
        assert_a_scheduled_run_comes_to_its_end(site)
    finally:
        site.run(*MAKE, "undeploy")
