"""Several processes at one study."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from components.errors import UserError
from pipelines.experiments.jobs import side_by_side

SLEEP = """
import os, time
from pipelines.experiments.jobs import side_by_side

def sleep():
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    side_by_side(2, sleep)
"""
ROOT = Path(__file__).parents[3]


def refuse(place: str) -> None:
    raise UserError(f"{place}: nothing here")


def test_each_tells_its_mistake_without_a_traceback(capfd):
    side_by_side(2, refuse, "somewhere")
    assert capfd.readouterr().err == "error: somewhere: nothing here\n" * 2


@pytest.mark.parametrize("end", [psutil.Popen.terminate, psutil.Popen.kill])
def test_none_outlives_the_one_that_started_them(tmp_path, end):
    (tmp_path / "sleep.py").write_text(SLEEP)
    parent = psutil.Popen(
        [sys.executable, tmp_path / "sleep.py"], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    workers = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    end(parent)
    parent.wait()
    deadline = time.monotonic() + 60
    while not all(map(ended, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(ended, workers))


def ended(process: psutil.Process) -> bool:
    """Also one that whoever adopted it has not asked for."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
