"""Lock files between real processes: who waits is told for whom, and a killed holder holds nothing."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components.locks import HeldError, Holder, locked

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from components.locks import locked
with locked(Path(sys.argv[1]), note="a note"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path/some/lock` until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "some" / "lock"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_next_waits_and_is_told_for_whom(holder, tmp_path):
    told: list[Holder] = []

    def wait(by: Holder) -> None:
        told.append(by)
        holder.terminate()

    with locked(tmp_path / "some" / "lock", wait):
        holder.wait(timeout=20)
    (by,) = told
    assert by.pid == holder.pid
    assert by.process == f"process {holder.pid}"
    assert str(by).startswith(f"process {holder.pid} ({sys.executable} -c ")
    assert str(by).endswith(", a note)")


def test_who_does_not_wait_is_told_who_holds_it(holder, tmp_path):
    with pytest.raises(HeldError) as held, locked(tmp_path / "some" / "lock", seconds=0):
        pass
    assert held.value.holder.pid == holder.pid


def test_a_killed_holder_holds_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    with locked(tmp_path / "some" / "lock", seconds=0):
        pass


def test_a_freed_lock_names_nobody(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        assert str(os.getpid()) in path.read_text()
    assert path.read_text() == ""


def test_threads_take_turns(tmp_path):
    inside: list[int] = []
    most = 0

    def work() -> None:
        nonlocal most
        for _ in range(20):
            with locked(tmp_path / "lock"):
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
