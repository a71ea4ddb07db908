"""Only DVC is killed while a stage runs, and runs that meet each other, in one small project with the real stages."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos.conftest import leftovers, numbers, processes_in
from tests.e2e.conftest import Project
from tests.e2e.deployed import MAKE

pytestmark = pytest.mark.chaos

RUN = (*MAKE, "run")


@pytest.fixture(scope="module")
def project(small: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Each test leaves it as it found it, if all is well."""
    return small.copy(tmp_path_factory.mktemp("races") / "project")


@pytest.fixture
def start(project: Project, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Path]]]:
    """`start(WORD, …)` is a command in the project, in a session of its own, and the file of all that it prints."""
    started = []

    def run(*command: str) -> tuple[subprocess.Popen[str], Path]:
        said = tmp_path / f"said-{len(started)}"
        with said.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=project.root,
                env=project.environment | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        started.append(process)
        return process, said

    yield run
    for left in [*processes_in(project), *(psutil.Process(p.pid) for p in started if p.poll() is None)]:
        left.kill()
    for process in started:
        process.wait()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} after two minutes"
        time.sleep(0.01)
    return found


def stage_process(project: Project, stage: str) -> psutil.Process | None:
    for process in processes_in(project):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "pipelines.stages" in words and stage in words and "-c" not in words:
            return process
    return None


def dvc_of(process: psutil.Process) -> psutil.Process:
    """The process that started a stage's command, be it through a shell."""
    while "DVC_STAGE" in process.environ():
        parent = process.parent()
        assert parent is not None
        process = parent
    return process


def make_stale(project: Project, stage: str) -> None:
    """Let a stage run again, to the same results: by a comment in its code."""
    with (project.root / "pipelines" / "stages" / f"{stage}.py").open("a") as file:
        file.write("# a comment\n")


def result(stage: str) -> str:
    return "outputs/reports/hybrid" if stage == "report" else f"outputs/hybrid/{stage}"


def at_work(project: Project, stage: str) -> bool:
    """Whether a stage is in the middle of its work: it has a resume file, or a folder that becomes its results."""
    if stage == "pretrain":
        return any((project.root / ".scratch").glob("pretrain-*/resume.pt"))
    folder = project.root / result(stage)
    return any(folder.parent.glob(f".{folder.name}.*"))


@pytest.mark.parametrize("stage", ["pretrain", "embed", "export", "report"])
def test_dvc_alone_is_killed_and_the_same_command_given_again(project, start, stage):
    """The stage lives on for a moment: it must not meet the one that the next run starts."""
    before = numbers(project)
    make_stale(project, stage)
    first, said = start(*RUN)
    orphan = wait_until(lambda: stage_process(project, stage), f"process of {stage}")
    wait_until(lambda: at_work(project, stage), f"work of {stage}")
    dvc_of(orphan).kill()
    assert first.wait(timeout=60) != 0

    again = project.run(*RUN)
    psutil.wait_procs([orphan], timeout=30)
    assert not orphan.is_running()
    assert "Traceback" not in said.read_text() + again.stdout + again.stderr
    assert processes_in(project) == []
    assert leftovers(project) == []
    assert numbers(project) == before


def test_a_stage_ends_with_dvc_behind_a_shell_that_does_not(project, start, tmp_path):
    """As `$SHELL -c` of a shell that waits for its command instead of becoming it."""
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\n/bin/sh "$@"\nexit $?\n')
    shell.chmod(0o755)
    make_stale(project, "probe")
    run, said = start("env", f"SHELL={shell}", sys.executable, "-m", "dvc", "repro")
    orphan = wait_until(lambda: stage_process(project, "probe"), "process of probe")
    wait_until(lambda: (project.root / ".scratch/locks/probe-of-hybrid.lock").read_text(), "lock")
    orphan.suspend()  # nothing ends it but itself
    dvc = dvc_of(orphan)
    assert dvc.pid not in (orphan.pid, orphan.ppid())
    dvc.kill()
    run.wait(timeout=60)
    orphan.resume()
    psutil.wait_procs([orphan], timeout=30)
    assert not orphan.is_running()
    assert "Traceback" not in said.read_text()
    project.run(*RUN)
    assert processes_in(project) == []
    assert leftovers(project) == []


def test_a_stage_waits_for_the_same_stage_of_another(project, start):
    command = (sys.executable, "-m", "pipelines.stages", "export", "--variant", "hybrid")
    first, _ = start(*command)
    wait_until(lambda: at_work(project, "export"), "work of export")
    first.send_signal(signal.SIGSTOP)
    second, said = start(*command)
    expected = f"stage export of hybrid: process {first.pid} is still running; waiting for it\n"
    wait_until(lambda: expected in said.read_text(), "message")
    first.send_signal(signal.SIGCONT)
    assert [process.wait(timeout=120) for process in (first, second)] == [0, 0]
    assert "Traceback" not in said.read_text()
    assert leftovers(project) == []
    assert json.loads((project.root / "outputs/hybrid/export/results.json").read_text())["metrics"]


def test_two_runs_at_the_same_time_take_turns(project, start):
    before = numbers(project)
    make_stale(project, "probe")
    first, first_said = start(*RUN)
    wait_until(lambda: stage_process(project, "probe"), "process of probe")
    second, second_said = start(*RUN)
    assert [process.wait(timeout=200) for process in (first, second)] == [0, 0], first_said.read_text()
    assert re.search(
        r"^Waiting for process \d+ \(python -m pipelines repro\), which is at work in ", second_said.read_text(), re.M
    )
    assert "busy" not in first_said.read_text() + second_said.read_text()
    assert second_said.read_text().count("Running stage") == 1  # `sources`, which always runs
    assert numbers(project) == before


def test_a_flow_waits_for_a_run(project, start):
    make_stale(project, "probe")
    first, _ = start(*RUN)
    probe = wait_until(lambda: stage_process(project, "probe"), "process of probe")
    probe.suspend()
    flow, said = start(*MAKE, "flow")
    wait_until(lambda: "Waiting for process" in said.read_text() or flow.poll() is not None, "message")
    probe.resume()
    assert [process.wait(timeout=200) for process in (first, flow)] == [0, 0], said.read_text()
    assert "(python -m pipelines repro), which is at work in" in said.read_text()
