"""Other work on the machine is noticed, and told with a number of threads that suits it."""

import subprocess
import sys
import time

import psutil
import pytest

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
