"""A worker that is killed takes the flow run that it started, and its stages, with it."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_flow_run_crashes_when_its_worker_is_killed(project, processes, tmp_path):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.deployments import run_deployment
    from prefect.flows import Flow
    from prefect.settings import get_current_settings

    marker = f"marker-{uuid.uuid4().hex}"
    sleep = f"{sys.executable} -c 'import time; time.sleep(120)' {marker}"
    root = project({"train": {"cmd": f"{sleep}; touch train.out", "meta": {"retries": 2}}})
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="killed", type="process"))
    flow = Flow.from_source(str(ROOT), "pipelines/flows/reproduce.py:reproduce")
    flow.deploy("orphan", work_pool_name="killed", print_next_steps=False)
    run = run_deployment("reproduce/orphan", parameters={"project": str(root)}, timeout=0)

    environment = os.environ | get_current_settings().to_environment_variables(exclude_unset=True)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "killed", "--name", marker[:12]]
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    descendants = []
    try:
        started = processes(marker, 1, seconds=90)
        descendants = psutil.Process(worker.pid).children(recursive=True)
        assert len(started) == 1, (tmp_path / "worker.log").read_text()
        assert started[0] in {process.pid for process in descendants}
    finally:
        worker.kill()
        worker.wait()
        _, alive = psutil.wait_procs(descendants, timeout=30)
        for process in alive:
            process.kill()
    assert alive == []
    assert processes(marker, 0) == []
    with get_client(sync_client=True) as client:
        until = time.monotonic() + 30
        while (state := client.read_flow_run(run.id).state).is_running() and time.monotonic() < until:
            time.sleep(0.2)
    assert state.is_crashed(), state
    assert not (root / "train.out").exists()
