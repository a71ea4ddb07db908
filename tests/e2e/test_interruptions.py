"""Runs that are killed, and runs that meet another one."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.e2e

STEPS = 30


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"no {what} after two minutes"
        time.sleep(0.002)


@contextmanager
def training(project) -> Iterator[subprocess.Popen[str]]:
    """A `dvc repro pretrain@hybrid` in a process group of its own that has written its first resume file."""
    process = subprocess.Popen(
        ["nice", "-n", "19", "dvc", "repro", "pretrain@hybrid"],  # so that whoever watches sees it in mid training
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: list((project.root / ".scratch").glob("*/resume.pt")), process, "resume file")
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def stage_process(process: subprocess.Popen[str]) -> psutil.Process:
    """The stage's process under this `dvc repro`."""
    children = psutil.Process(process.pid).children(recursive=True)
    return next(child for child in children if "pipelines.stages" in child.cmdline())


def resume_file(project) -> dict[str, Any]:
    import torch

    (path,) = (project.root / ".scratch").glob("*/resume.pt")
    return torch.load(path, weights_only=True)


def speeds(project) -> list[float]:
    """Images a second at each logged step: timings, so no two runs have the same."""
    with (project.root / "outputs/hybrid/pretrain/curves.csv").open(newline="") as file:
        return [float(row["images_per_second"]) for row in csv.DictReader(file)]


@pytest.fixture
def changed(scratch):
    """The finished project where pretraining must run again, to the same weights: it saves after every step."""
    import torch  # noqa: F401 - here, because a running training does not wait for the seconds that it takes

    scratch.edit({"training.checkpoint_seconds": 0})
    return scratch


@pytest.mark.parametrize("killed", ["everything", "the stage alone"])
def test_a_killed_training_goes_on_where_it_was(finished, changed, killed):
    with training(changed) as process:
        stage = stage_process(process)
        wait_until(lambda: resume_file(changed)["step"] >= STEPS // 3, process, "a third of the training")
        if killed == "everything":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            stage.kill()
        _, warnings = process.communicate(timeout=60)
    assert process.returncode != 0
    if killed == "the stage alone":
        assert re.search(r"exited with (-9|137)", warnings)  # 137 where the shell stays between DVC and the stage
    assert not (changed.root / "outputs/hybrid/pretrain").exists()
    left = resume_file(changed)
    assert STEPS // 3 <= left["step"] < STEPS

    told = changed.dvc("repro", "pretrain@hybrid")
    assert f"goes on after step {left['step']}\n" in told.stdout
    shown = [int(step) for step in re.findall(r"^step (\d+)/", told.stderr, re.MULTILINE)]
    assert min(shown) > left["step"]
    weights = "outputs/hybrid/pretrain/model.safetensors"
    assert (changed.root / weights).read_bytes() == (finished.root / weights).read_bytes()
    before = [row["images_per_second"] for row in left["history"]]
    assert speeds(changed)[: len(before)] == before  # steps of the killed try: it did not start over
    journals = changed.root / ".tracking/journals"
    killed, resumed = sorted(folder for folder in journals.iterdir() if "pretrain-hybrid" in folder.name)
    events = [json.loads(line) for line in (resumed / "events.jsonl").read_text().splitlines()]
    assert [event["children"] for event in events if event["event"] == "nest"] == [[killed.name]]
    assert set(changed.files("outputs/hybrid")) == set(finished.files("outputs/hybrid"))  # and nothing is left over
    assert not changed.files(".scratch")
    assert "didn't change" in changed.dvc("repro", "--single-item", "pretrain@hybrid").stdout


def test_a_second_repro_is_told_who_is_at_work(finished, changed):
    with training(changed) as process:
        stage = stage_process(process)
        stage.suspend()  # it must not end before the second has met it
        second = changed.dvc("repro", code=None)
        stage.resume()
        assert process.wait(timeout=60) == 0
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr
    assert f"(PID {process.pid})" in second.stderr
    assert "dvc repro pretrain@hybrid" in second.stderr
    assert "Traceback" not in second.stderr
    weights = "outputs/hybrid/pretrain/model.safetensors"
    assert (changed.root / weights).read_bytes() == (finished.root / weights).read_bytes()


def test_waiting_for_the_lock_of_the_repository(scratch):
    """`make run` waits for another DVC command to end; without `--wait-for-lock` DVC gives up after seconds."""
    from zc.lockfile import LockFile

    def repro(*flags: str) -> subprocess.Popen[str]:
        command = ["dvc", *flags, "repro", "--single-item", "prepare"]
        output = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=scratch.root, env=scratch.environment, stdout=output, stderr=output, text=True
        )

    lock = LockFile(str(scratch.root / ".dvc/tmp/lock"))
    try:
        patient, hasty = repro("--wait-for-lock"), repro()
        _, told = hasty.communicate(timeout=60)
        assert hasty.returncode != 0
        assert "Unable to acquire lock" in told
        assert patient.poll() is None
    finally:
        lock.close()
    said, told = patient.communicate(timeout=60)
    assert patient.returncode == 0, told
    assert "Stage 'prepare' didn't change, skipping" in said
