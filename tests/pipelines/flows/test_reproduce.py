import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from prefect.states import State

from pipelines.flows.dvc_runner import Outcome
from pipelines.flows.reproduce import reproduce

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


def task_states(state: State) -> dict[str, tuple[str, str]]:
    """{stage: (type and name of its task's state)}, as Prefect's pages show them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        for _ in range(100):  # they are sent in the background
            found = {task.name: task.state for task in client.read_task_runs(flow_run_filter=run)}
            if all(each is not None and (each.is_final() or each.name == "NotReady") for each in found.values()):
                break
            time.sleep(0.1)
    return {name: (each.type.value, each.name) for name, each in found.items()}


def logs_of(state: State, wanted: set[str]) -> set[str]:
    """The messages in the flow run's log, as soon as these are among them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        for _ in range(100):  # they are sent in batches
            messages = {log.message for log in client.read_logs(run)}
            if wanted <= messages:
                break
            time.sleep(0.1)
    return messages


def test_only_what_changed_runs_again(project):
    root = project(CHAIN)
    (root / "source").write_text("1\n")
    began = time.time()
    assert results(reproduce(project=str(root))) == {"first": "run", "second": "run", "third": "run"}
    assert began <= float((root / "since").read_text()) <= float((root / "started").read_text())
    assert results(reproduce(project=str(root))) == {"first": "cached", "second": "cached", "third": "cached"}

    (root / "source").write_text("2\n")  # as many lines as before: the third has nothing new to read
    state = reproduce(project=str(root), return_state=True)
    assert results(state.result()) == {"first": "run", "second": "run", "third": "cached"}
    run = ("COMPLETED", "Completed")
    assert task_states(state) == {"first": run, "second": run, "third": ("COMPLETED", "Cached")}
    assert results(reproduce(["first"], force=True, project=str(root))) == {"first": "run"}

    (root / "third.out").unlink()
    assert results(reproduce(project=str(root))) == {"first": "cached", "second": "cached", "third": "cached"}
    assert (root / "third.out").read_text().strip() == "1"


def test_a_stage_that_always_runs_is_cached_as_long_as_it_finds_the_same(project):
    root = project(CHAIN | {"first": {"cmd": "echo run >> runs; cat source > first.out", "always_changed": True}})
    (root / "source").write_text("1\n")
    reproduce(project=str(root))
    assert results(reproduce(project=str(root))) == {"first": "cached", "second": "cached", "third": "cached"}
    assert (root / "runs").read_text() == "run\nrun\n"
    (root / "source").write_text("2\n")
    assert results(reproduce(project=str(root))) == {"first": "run", "second": "run", "third": "cached"}
    assert results(reproduce(["first"], force=True, project=str(root))) == {"first": "cached"}


def test_independent_stages_run_side_by_side(project):
    """Each waits for a file that the other writes."""
    wait = "for i in $(seq 400); do [ -e {1}.here ] && touch {0}.out && exit; sleep 0.05; done"
    meet = f"touch {{0}}.here; {wait}; exit 1"
    root = project({"left": {"cmd": meet.format("left", "right")}, "right": {"cmd": meet.format("right", "left")}})
    assert results(reproduce(project=str(root))) == {"left": "run", "right": "run"}


def test_two_flow_runs_in_one_folder_take_turns(project):
    """DVC itself refuses the second: "is busy, it is being blocked by"."""
    from prefect.settings import get_current_settings

    root = project({"slow": {"cmd": "echo run >> runs; sleep 2; touch slow.out", "always_changed": True}})
    environment = os.environ | get_current_settings().to_environment_variables(exclude_unset=True)
    command = [sys.executable, "-m", "pipelines", "flow", "reproduce", f"project={root}"]
    started = [subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    told = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], told
    assert (root / "runs").read_text().split() == ["run"] * 3
    said = b"".join(told).decode()
    assert any(f"Waiting for process {process.pid} ({sys.executable} -m" in said for process in started)


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
    assert "| needs broken |" in table["after"]
    assert "| run |" in table["fine"]
    assert not (root / "later.out").exists()
    failed, skipped = ("FAILED", "Failed"), ("PENDING", "NotReady")
    assert task_states(state) == {
        **{"broken": failed, "slow": failed, "missing": failed, "after": skipped, "later": skipped},
        "fine": ("COMPLETED", "Completed"),
    }
    logs = "\n".join(logs_of(state, {"error: no | images"}))
    assert "task_engine.py" not in logs  # no traceback of ours or Prefect's
    assert "NoneType" not in logs


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


@pytest.mark.parametrize(("told", "tries"), [("error: training.steps: too few", 1), ("killed: by SIGKILL", 2)])
def test_a_mistake_is_not_tried_again(project, told, tries):
    root = project({"broken": {"cmd": f"echo try >> tries; echo '{told}' >&2; exit 1", "meta": {"retries": 1}}})
    state = reproduce(project=str(root), return_state=True)
    assert state.message == f"1 failed. broken: {told.removeprefix('error: ')}"
    assert len((root / "tries").read_text().split()) == tries


def test_a_full_cache_is_one_message_and_not_tried_again(project, tmp_path):
    files = "echo try >> tries; mkdir big.out; for i in 1 2 3; do head -c 90000 /dev/urandom > big.out/$i; done"
    root = project({"big": {"cmd": files, "meta": {"retries": 1}}})
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    try:
        with (root / ".dvc" / "config").open("a") as config:
            config.write(f"[cache]\n    dir = {disk / 'cache'}\n    type = copy\n")
        state = reproduce(project=str(root), return_state=True)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert state.is_failed()
    assert str(state.message).startswith("1 failed. big: failed to reproduce 'big': DVC's cache (")
    assert "has no room for the results (No space left on device)" in str(state.message)
    assert (root / "tries").read_text() == "try\n"


@pytest.mark.parametrize("form", ["$i/4", "17$i (75%)"], ids=["steps", "seconds"])
def test_output_and_progress_are_shown_in_prefect(project, form):
    steps = f'for i in 1 2 3; do echo "step {form} nll $i.0"; done'
    root = project({"Train-it": {"cmd": f"echo 100% of $HOME; echo wrong >&2; {steps}; touch Train-it.out"}})
    state = reproduce(project=str(root), return_state=True)
    assert state.message == "1 run"
    assert float(artifact("progress-train-it")) == 75
    last = f"step {form} nll 3.0".replace("$i", "3")
    wanted = {f"100% of {os.environ['HOME']}", "wrong", last, "Running stage 'Train-it':"}
    assert wanted <= logs_of(state, wanted)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"targets": ["frist"]}, "targets: no stage 'frist', did you mean 'first'. Known: first, second, third."),
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killing_the_flow_leaves_no_process_and_the_next_run_goes_on(project, processes, tmp_path, number):
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
    command = [sys.executable, "-m", "pipelines", "flow", "reproduce", f"project={root}"]
    with (
        (tmp_path / "told").open("w") as told,
        # what a shell started in the background ignores SIGINT, and so would all that it starts
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stderr=told,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as run,
    ):
        assert len(processes(marker, 1)) == 1
        run.send_signal(number)
        assert run.wait(20) != 0
        assert processes(marker, 0) == []
    if number == signal.SIGINT:  # Ctrl-C
        assert run.returncode == 130
        assert (tmp_path / "told").read_text().splitlines()[-1].startswith("interrupted; the same command goes on")
    (root / "go").touch()
    assert results(reproduce(project=str(root))) == {"first": "cached", "train": "run"}
    assert (root / "runs").read_text() == "once\n"


def test_with_overrides_or_a_preset_it_runs_in_isolation(committed, commit, tmp_path):
    """What is committed runs, in a workspace; the cache is shared both ways; the project's files stay as they are."""
    told = f"echo $PIPELINE_TRACKING > {tmp_path / 'where'}; echo $PIPELINE_TAGS > {tmp_path / 'tags'}"
    root = committed(
        {
            "first": {"cmd": f"cat source > first.out; echo once >> {tmp_path / 'firsts'}", "deps": ["source"]},
            "steps": {
                "cmd": f"grep ' steps:' params.yaml > steps.out; {told}",
                "deps": ["first.out"],
                "params": ["training.steps"],
            },
        }
    )
    (root / "source").write_text("1\n")
    commit(root)
    assert results(reproduce(project=str(root))) == {"first": "run", "steps": "run"}
    (root / "source").write_text("2\n")  # not committed
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".dvc" not in path.parts}

    state = reproduce(project=str(root), overrides={"training.steps": 70}, return_state=True)
    assert results(state.result()) == {"first": "cached", "steps": "run"}
    workspaces = root / ".dvc/tmp/workspaces"
    (folder,) = (path for path in workspaces.iterdir() if path.is_dir())
    assert (folder / "steps.out").read_text() == "  steps: 70\n"
    assert (folder / "first.out").read_text() == "1\n"
    assert (tmp_path / "where").read_text().strip() == str(root / ".tracking")
    tags = json.loads((tmp_path / "tags").read_text())
    assert tags["prefect.flow"] == "reproduce"
    assert tags["overrides"] == '{"training.steps": 70}'
    assert tags["prefect.flow_run_id"] == str(state.state_details.flow_run_id)
    assert tags["prefect.url"].endswith(f"/runs/flow-run/{tags['prefect.flow_run_id']}")

    again = reproduce(project=str(root), overrides={"training.steps": 70})
    assert results(again) == {"first": "cached", "steps": "cached"}
    assert results(reproduce(["steps"], project=str(root), preset="cifar10-gpu")) == {"first": "cached", "steps": "run"}
    assert (tmp_path / "firsts").read_text() == "once\n"
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".dvc" not in path.parts}
    assert after == before


def test_a_removed_workspace_comes_back_from_the_cache(committed, tmp_path):
    command = f"grep ' steps:' params.yaml > steps.out; echo once >> {tmp_path / 'runs'}"
    root = committed({"steps": {"cmd": command, "params": ["training.steps"]}})
    for _ in range(2):
        state = reproduce(project=str(root), overrides={"training.steps": 70}, return_state=True)
        assert state.is_completed()
        shutil.rmtree(root / ".dvc/tmp/workspaces")
    assert state.message == "1 cached"
    assert (tmp_path / "runs").read_text() == "once\n"


def test_the_comparison_is_shown_and_failures_are_told_of_isolated_runs(committed):
    page = "mkdir -p outputs/compare; cd outputs/compare; echo '| hybrid | best |' > comparison.md"
    figure = "printf figure > comparison.png; cd -"
    root = committed(
        {
            "compare": {"cmd": f"{page}; {figure}; touch compare.out"},
            "broken": {"cmd": "echo 'error: no images'; exit 1", "params": ["seed"]},
        }
    )
    state = reproduce(project=str(root), overrides={"seed": 1}, return_state=True)
    assert state.is_failed()
    assert state.message == "1 failed, 1 run. broken: no images"
    shown = base64.b64encode(b"figure").decode()
    assert artifact("comparison") == f"| hybrid | best |\n\n![The variants compared](data:image/png;base64,{shown})\n"
    state = reproduce(project=str(root), overrides={"sede": 1}, return_state=True)
    assert state.is_failed()
    assert state.message.startswith("params.yaml with overrides: sede: unknown key, did you mean 'seed'")
