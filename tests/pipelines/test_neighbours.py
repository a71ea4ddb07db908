"""Other work on the machine is noticed, and told with a number of threads that suits it."""

import subprocess
import sys
import time

import psutil
import pytest

from components.training.config import TrainingConfig
from pipelines.neighbours import Neighbours, advice

BUSY = "while True: pass"


def test_work_of_another_process_counts_and_ones_own_does_not():
    with subprocess.Popen([sys.executable, "-c", BUSY]) as other:
        try:
            neighbours, seen = Neighbours(), psutil.Process(other.pid)
            since, began = sum(seen.cpu_times()[:2]), time.monotonic()
            while sum(seen.cpu_times()[:2]) - since < 0.5:  # processor seconds, however busy the machine is
                pass
            took = time.monotonic() - began
            assert neighbours.cores() > 0.25 / took
        finally:
            other.kill()


@pytest.mark.parametrize(
    ("others", "threads", "fewer"),
    [(0.0, 8, None), (0.2, 2, None), (3.0, 1, None), (0.9, 2, 1), (1.2, 8, 6), (9.0, 4, 1)],
)
def test_advice(others, threads, fewer):
    said = advice(others, threads)
    assert (said is None) == (fewer is None)
    assert said is None or f"OMP_NUM_THREADS={fewer} " in said


def test_other_work_on_the_machine_is_told_once(capsys, monkeypatch):
    from pipelines.stages.training import Progress

    monkeypatch.setattr(Neighbours, "seconds", 11.0)
    monkeypatch.setattr(Neighbours, "cores", lambda self: 1.5)
    progress = Progress(TrainingConfig(steps=20, batch_size=8, learning_rate=0.01, warmup_steps=2))
    progress.threads = 2
    for step in (1, 20):
        progress(step, {"images_per_second": 1000.0})
    told = [line for line in capsys.readouterr().err.splitlines() if "OMP_NUM_THREADS" in line]
    assert len(told) == 1
    assert told[0].endswith("OMP_NUM_THREADS=1 may train faster than 2 threads")
