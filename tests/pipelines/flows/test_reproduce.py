import itertools
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from pipelines.flows.reproduce import Outcome, main, reproduce

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("prefect_server")

CHAIN = {
    "first": {"cmd": "cat source > first.out; date +%s.%N > started", "deps": ["source"]},
    "second": {"cmd": "wc -l < first.out > second.out", "deps": ["first.out"]},
    "third": {"cmd": "cat second.out > third.out; echo $PIPELINE_STARTED > since", "deps": ["second.out"]},
}


def results(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: outcome.result for name, outcome in outcomes.items()}


def artifact(key: str) -> str:
    from prefect.artifacts import Artifact

    found = Artifact.get(key)
    assert found is not None
    return str(found.data)


def test_only_what_changed_runs_again(project):
    root = project(CHAIN)
    (root / "source").write_text("1\n")
    began = time.time()
    assert results(reproduce(project=str(root))) == {"first": "run", "second": "run", "third": "run"}
    assert began <= float((root / "since").read_text()) <= float((root / "started").read_text())
    assert results(reproduce(project=str(root))) == {"first": "cached", "second": "cached", "third": "cached"}

    (root / "source").write_text("2\n")  # as many lines as before: the third has nothing new to read
    assert results(reproduce(project=str(root))) == {"first": "run", "second": "run", "third": "cached"}
    assert results(reproduce(["first"], force=True, project=str(root))) == {"first": "run"}

    (root / "third.out").unlink()
    assert results(reproduce(project=str(root))) == {"first": "cached", "second": "cached", "third": "cached"}
    assert (root / "third.out").read_text().strip() == "1"


def test_independent_stages_run_side_by_side(project):
    """Each waits for a file that the other writes."""
    wait = "for i in $(seq 400); do [ -e {1}.here ] && touch {0}.out && exit; sleep 0.05; done"
    meet = f"touch {{0}}.here; {wait}; exit 1"
    root = project({"left": {"cmd": meet.format("left", "right")}, "right": {"cmd": meet.format("right", "left")}})
    assert results(reproduce(project=str(root))) == {"left": "run", "right": "run"}


@pytest.mark.parametrize(("gpu", "parallel"), [(True, 3), (False, 1)])
def test_never_side_by_side(project, gpu, parallel):
    command = "date +%s%N > {0}.times; sleep 2; date +%s%N >> {0}.times; touch {0}.out"
    stages = {name: {"cmd": command.format(name), "meta": {"gpu": gpu}} for name in ("one", "two")}
    root = project(stages)
    assert set(results(reproduce(parallel=parallel, project=str(root))).values()) == {"run"}
    times = sorted([int(line) for line in (root / f"{name}.times").read_text().split()] for name in stages)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))


def test_a_failure_is_told_and_skips_what_depends_on_it(project, processes):
    marker = f"marker-{uuid.uuid4().hex}"
    sleep = f"{sys.executable} -c 'import time; time.sleep(60)' {marker}"
    root = project(
        {
            "broken": {"cmd": "echo 'error: no | images' >&2; exit 3"},
            "after": {"cmd": "touch after.out", "deps": ["broken.out"]},
            "later": {"cmd": "touch later.out", "deps": ["after.out", "fine.out"]},
            "fine": {"cmd": "touch fine.out"},
            "slow": {"cmd": f"{sleep}; touch slow.out", "meta": {"timeout_seconds": 3}},
            "missing": {"cmd": "touch missing.out", "deps": ["nowhere"]},
        }
    )
    state = reproduce(project=str(root), return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert state.message.startswith("3 failed, 2 skipped, 1 run. ")
    assert "broken: no | images" in state.message
    assert "slow: ended after 3 s, its timeout_seconds in dvc.yaml" in state.message
    assert "nowhere" in state.message
    assert processes(marker, 0) == []
    table = {row.split("|")[1].strip(): row for row in artifact("reproduce").splitlines() if row.startswith("| ")}
    assert "| failed |" in table["broken"]
    assert r"no \| images" in table["broken"]
    assert all("| skipped | 0.0 |" in table[name] for name in ("after", "later"))
    assert "| run |" in table["fine"]
    assert not (root / "later.out").exists()


def test_a_stage_that_cannot_even_be_started_has_failed(project, monkeypatch):
    root = project({"first": {"cmd": "touch first.out"}, "second": {"cmd": "true", "deps": ["first.out"]}})
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    state = reproduce(project=str(root), return_state=True)
    assert state.is_failed()
    assert str(state.message).startswith("1 failed, 1 skipped. first: ")
    assert "/nowhere/python" in str(state.message)


@pytest.mark.parametrize(("retries", "result"), [(1, "failed"), (2, "run")])
def test_retries(project, retries, result):
    """A stage that succeeds at its third try."""
    command = "echo try >> tries; [ $(wc -l < tries) -ge 3 ] && touch flaky.out"
    root = project({"flaky": {"cmd": command, "meta": {"retries": retries}}})
    state = reproduce(project=str(root), return_state=True)
    assert len((root / "tries").read_text().split()) == retries + 1
    assert state.is_completed() == (result == "run")
    assert f"| flaky | {result} |" in artifact("reproduce")


def test_output_and_progress_are_shown_in_prefect(project):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    steps = 'for i in 1 2 3; do echo "step $i/4 nll $i.0"; done'
    root = project({"Train-it": {"cmd": f"echo 100% of $HOME; echo wrong >&2; {steps}; touch Train-it.out"}})
    state = reproduce(project=str(root), return_state=True)
    assert state.message == "1 run"
    assert float(artifact("progress-train-it")) == 75
    flow_run = state.state_details.flow_run_id
    assert flow_run is not None
    wanted = {f"100% of {os.environ['HOME']}", "wrong", "step 3/4 nll 3.0", "Running stage 'Train-it':"}
    with get_client(sync_client=True) as client:
        for _ in range(100):  # they are sent in batches
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run])))
            if wanted <= {log.message for log in logs}:
                break
            time.sleep(0.1)
    assert wanted <= {log.message for log in logs}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"targets": ["frist"]}, "targets: no stage 'frist' (did you mean 'first'?). Known: first, second, third."),
        ({"project": "/nowhere"}, "/nowhere"),
        ({"parallel": 0}, "parallel"),
    ],
)
def test_mistakes_in_parameters_fail_the_flow_before_anything_runs(project, parameters, told):
    root = project(CHAIN)
    (root / "source").touch()
    state = reproduce(**{"project": str(root)} | parameters, return_state=True)
    assert state.is_failed()
    assert told in str(state.message)
    assert not (root / "dvc.lock").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_flow_leaves_no_process_and_the_next_run_goes_on(project, processes, number):
    from prefect.settings import get_current_settings

    marker = f"marker-{uuid.uuid4().hex}"
    code = "import os, time; os.path.exists(`go`) or time.sleep(60); open(`train.out`, `w`)".replace("`", '"')
    root = project(
        {
            "first": {"cmd": "echo once >> runs; touch first.out"},
            "train": {"cmd": f"{sys.executable} -c '{code}' {marker}", "deps": ["first.out"], "meta": {"retries": 2}},
        }
    )
    environment = os.environ | get_current_settings().to_environment_variables(exclude_unset=True)
    command = [sys.executable, "-m", "pipelines.flows.reproduce", "--project", str(root)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        assert len(processes(marker, 1)) == 1
        run.send_signal(number)
        assert run.wait(20) != 0
        assert processes(marker, 0) == []
    (root / "go").touch()
    assert results(reproduce(project=str(root))) == {"first": "cached", "train": "run"}
    assert (root / "runs").read_text() == "once\n"


def test_the_command_exits_with_the_message(project, capsys):
    root = project({"broken": {"cmd": "echo 'error: no images'; exit 1"}, "fine": {"cmd": "touch fine.out"}})
    assert main(["fine", "--project", str(root)]) == 0
    capsys.readouterr()
    assert main(["--project", str(root)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: 1 failed, 1 cached. broken: no images"
