"""DVC's list of who works at which files, as kills leave it."""

import json
import os
import subprocess
import sys

import pytest
from zc.lockfile import LockFile

from pipelines import rwlock


@pytest.fixture
def place(tmp_path):
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path / ".dvc" / "tmp" / "rwlock"


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def entry(pid: int) -> dict[str, object]:
    return {"pid": pid, "cmd": f"dvc repro {pid}"}


def test_entries_of_the_dead_are_removed(place, tmp_path, gone):
    alive = entry(os.getpid())
    place.write_text(json.dumps({"read": {"a": [entry(gone), alive]}, "write": {"b": entry(gone), "c": alive}}))
    rwlock.clear_dead(tmp_path)
    assert json.loads(place.read_text()) == {"read": {"a": [alive]}, "write": {"c": alive}}
    assert rwlock.at_work(tmp_path) == [(os.getpid(), f"dvc repro {os.getpid()}")]


def test_a_process_that_began_afterwards_is_another(place, tmp_path):
    """A container's first process has the same number after each start."""
    place.write_text(json.dumps({"write": {"b": entry(os.getpid())}}))
    os.utime(place, (0, 0))
    rwlock.clear_dead(tmp_path)
    assert json.loads(place.read_text())["write"] == {}


@pytest.mark.parametrize("half", ["", '{"read": {"a"', "[]"])
def test_half_a_file_is_removed(place, tmp_path, half):
    place.write_text(half)
    rwlock.clear_dead(tmp_path)
    assert not place.exists()
    assert rwlock.at_work(tmp_path) == []


def test_a_list_that_dvc_is_just_writing_is_left_alone(place, tmp_path):
    place.write_text("half")
    lock = LockFile(str(place.with_name("rwlock.lock")))
    try:
        rwlock.clear_dead(tmp_path)
    finally:
        lock.close()
    assert place.read_text() == "half"
