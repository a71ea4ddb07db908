"""System metrics of a long stage, under the names that MLflow's UI shows as system metrics."""

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipelines.tracking.journal import Journal

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor


class SystemSampler:
    """A background thread that writes CPU, memory, disk, network and GPU use to a journal; a context manager."""

    def __init__(self, journal: Journal, every: float = 10.0) -> None:
        self.journal = journal
        self.every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        monitors = _monitors()  # here, because the import takes seconds
        step = 0
        while not self._stop.wait(self.every):
            values: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                values.update(monitor.aggregate_metrics())
                monitor.clear_metrics()
            self.journal.metrics({f"system/{name}": value for name, value in values.items()}, step=step)
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
