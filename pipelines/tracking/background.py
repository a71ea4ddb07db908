"""Threads beside a stage's work: one shows it in MLflow while it runs, one samples the machine. The stage never waits.

Each is a context manager around the work.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from pipelines.tracking.checks import EVENTS
from pipelines.tracking.journal import Journal
from pipelines.tracking.uploader import deliver

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

LONGEST_PAUSE = 60.0  # seconds between attempts while the server is away


def upload_in_background(
    journal: Journal, every: float = 5.0, tracking_uri: str | None = None
) -> AbstractContextManager[threading.Thread]:
    """Deliver a journal every few seconds.

    While the server is away it tries more and more rarely, and says so once. At the end a request under way gets ten
    seconds; whatever it has not sent is left to the next `deliver`.
    """
    return _thread(lambda stop: _upload(journal, every, tracking_uri, stop), timeout=10.0)


def sample_system(journal: Journal, every: float = 10.0) -> AbstractContextManager[threading.Thread]:
    """Write CPU, memory, disk, network and GPU use to a journal, as MLflow's UI names system metrics."""
    return _thread(lambda stop: _sample(journal, every, stop))


@contextmanager
def _thread(work: Callable[[threading.Event], None], timeout: float | None = None) -> Iterator[threading.Thread]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(timeout)


def _upload(journal: Journal, every: float, tracking_uri: str | None, stop: threading.Event) -> None:
    root = journal.folder.parent.parent
    pause, size, away = every, 0, False
    while not stop.wait(pause):
        try:
            grown = (journal.folder / EVENTS).stat().st_size
        except FileNotFoundError:
            return  # finished, delivered and removed
        if grown == size:
            continue
        delivery = deliver(tracking_uri, only=[journal.key], timeout=10.0, root=root, quiet=True)
        if delivery.error and not away:
            print(f"{delivery.warning(root)} The stage goes on.", file=sys.stderr, flush=True)
        if away and not delivery.error:
            print("MLflow: the tracking server is back", file=sys.stderr, flush=True)
        away = delivery.error is not None
        pause = min(2 * pause, LONGEST_PAUSE) if away else every
        size = size if delivery.pending else grown


def _sample(journal: Journal, every: float, stop: threading.Event) -> None:
    monitors = _monitors()  # here, because the import takes seconds
    step = 0
    while not stop.wait(every):
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values.update(monitor.aggregate_metrics())
            monitor.clear_metrics()
        journal.metrics({f"system/{name}": value for name, value in values.items()}, step=step)
        step += 1


def _monitors() -> "list[BaseMetricsMonitor]":
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    from pipelines.tracking import store  # noqa: F401 - sets MLflow's environment before its import

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        return [*monitors, GPUMonitor()]
    except RuntimeError:  # no NVIDIA GPU
        return monitors
