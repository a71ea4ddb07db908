import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from pipelines.flows.commands import Commands, StoppedError, TimeoutExceededError

ROOT = Path(__file__).parents[3]
# a shell, a Python below it, and another in the background
TREE = "{python} -c 'import time; time.sleep(60)' {marker} & {python} -c 'import time; time.sleep(60)' {marker}; true"


@pytest.fixture
def marker() -> str:
    return f"marker-{uuid.uuid4().hex}"


def tree(marker: str) -> list[str]:
    return ["sh", "-c", TREE.format(python=sys.executable, marker=marker)]


def test_lines_and_exit_code(tmp_path):
    lines: list[str] = []
    command = ["sh", "-c", "echo $WORD; pwd; echo wrong >&2; printf unfinished; exit 3"]
    assert Commands().run(command, tmp_path, os.environ | {"WORD": "hello"}, lines.append) == 3
    assert lines == ["hello", str(tmp_path), "wrong", "unfinished"]


def test_lines_tell_no_password_of_an_address(tmp_path):
    """Such as DVC's, which names its remote."""
    lines: list[str] = []
    said = "ERROR: cannot push to https://me:se/cret#ive@host/store - refused"
    assert Commands().run(["echo", said], tmp_path, os.environ, lines.append) == 0
    assert lines == ["ERROR: cannot push to https://host/store - refused"]


def test_lines_come_while_it_runs(tmp_path):
    """The command ends only when its first line has been taken."""
    done = tmp_path / "done"
    command = ["sh", "-c", f"echo begun; while [ ! -e {done} ]; do sleep 0.05; done"]
    assert Commands().run(command, tmp_path, os.environ, lambda line: done.touch(), timeout_seconds=30) == 0


def test_ended_by_a_signal(tmp_path):
    assert Commands().run(["sh", "-c", "kill -9 $$"], tmp_path, os.environ, print) == 128 + 9


def test_what_stays_in_the_background_ends_with_the_command(tmp_path, processes, marker):
    background = f"{sys.executable} -c 'import time; time.sleep(60)' {marker} > {os.devnull} 2>&1 &"
    assert Commands().run(["sh", "-c", background], tmp_path, os.environ, print) == 0
    assert processes(marker, 0) == []


def test_a_timeout_ends_the_whole_group(tmp_path, processes, marker):
    with pytest.raises(TimeoutExceededError):
        Commands().run(tree(marker), tmp_path, os.environ, print, timeout_seconds=0.5)
    assert processes(marker, 0) == []


def test_stop_ends_the_whole_group_and_lets_no_other_start(tmp_path, processes, marker):
    commands = Commands()
    ended = threading.Event()

    def run() -> None:
        with pytest.raises(StoppedError):
            commands.run(tree(marker), tmp_path, os.environ, print)
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert len(processes(marker, 2)) == 2
    commands.stop()
    thread.join(20)
    assert ended.is_set()
    assert processes(marker, 0) == []
    with pytest.raises(StoppedError):
        commands.run(["touch", "started"], tmp_path, os.environ, print)
    assert not (tmp_path / "started").exists()


def test_a_mistake_in_the_callback_leaves_nothing(tmp_path, processes, marker):
    def broken(line: str) -> None:
        assert len(processes(marker, 2)) == 2
        raise ValueError(line)

    with pytest.raises(ValueError, match="begun"):
        Commands().run(["sh", "-c", f"echo begun; {tree(marker)[-1]}"], tmp_path, os.environ, broken)
    assert processes(marker, 0) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_death_of_the_one_who_started_it(tmp_path, processes, marker, number):
    code = (
        "import os, pathlib, sys; from pipelines.flows.commands import Commands; "
        "Commands().run(sys.argv[1:], pathlib.Path.cwd(), os.environ, print)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *tree(marker)], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as parent:
        assert len(processes(marker, 2)) == 2
        parent.send_signal(number)
        parent.wait(20)
        assert processes(marker, 0) == []
