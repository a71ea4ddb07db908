"""Lock files between real processes: who waits is told for whom, and a killed holder holds nothing."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

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
HOLD_WITH_CHILD = """
import os, subprocess, sys
from contextlib import suppress
from pathlib import Path
from components.locks import locked
with locked(Path(sys.argv[1])):
    for descriptor in range(3, 64):  # the lock's among them
        with suppress(OSError):
            os.set_inheritable(descriptor, True)
    subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], close_fds=False)
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


def test_a_killed_holders_lock_is_waited_for_while_a_process_that_it_was_starting_has_it_open(tmp_path):
    lock = tmp_path / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_WITH_CHILD, lock], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    with pytest.raises(Timeout):
        FileLock(lock).acquire(timeout=0)
    child_ends = threading.Timer(0.3, process.stdin.close)
    child_ends.start()
    with locked(lock, seconds=0):
        assert str(os.getpid()) in lock.read_text()
    child_ends.join()
    process.stdout.close()


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
