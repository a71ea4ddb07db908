"""Other work on this machine: threads that wait for each other train several times slower beside it."""

import os
import time
from typing import NamedTuple

NOTICED = 0.3  # cores; up to this it is the noise of any machine


class Used(NamedTuple):
    """Processor seconds so far."""

    at: float
    by_all: float
    by_us: float


class Neighbours:
    """What others take of the processor from now on."""

    def __init__(self) -> None:
        self.before = _used()

    @property
    def seconds(self) -> float:
        """For how long they have been watched."""
        return time.monotonic() - self.before.at if self.before else 0.0

    def cores(self) -> float:
        """How many cores others have kept busy on average; 0 where that cannot be told."""
        now = _used()
        if self.before is None or now is None or now.at <= self.before.at:
            return 0.0
        others = (now.by_all - self.before.by_all) - (now.by_us - self.before.by_us)
        return max(0.0, others / (now.at - self.before.at))


def advice(others: float, threads: int) -> str | None:
    """What to do where others keep so many cores busy, and training has so many threads."""
    if threads < 2 or others < NOTICED:
        return None
    fewer = max(1, threads - round(others + 0.5))
    return (
        f"other work takes {others:.1f} of this machine's cores, and threads that wait for each other are slow: "
        f"OMP_NUM_THREADS={fewer} may train faster than {threads} threads"
    )


def _used() -> Used | None:
    try:
        import psutil
    except ImportError:  # a machine without the stack
        return None
    whole = psutil.cpu_times()
    waiting = whole.idle + getattr(whole, "iowait", 0.0)
    ours = os.times()
    return Used(time.monotonic(), sum(whole[:8]) - waiting, ours.user + ours.system)
