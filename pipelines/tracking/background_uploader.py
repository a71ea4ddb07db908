"""Show a running stage in MLflow while it runs."""

import sys
import threading
from types import TracebackType
from typing import Self

from pipelines.tracking.checks import EVENTS
from pipelines.tracking.journal import Journal
from pipelines.tracking.uploader import deliver

LONGEST_PAUSE = 60.0  # seconds between attempts while the server is away


class BackgroundUploader:
    """A background thread that delivers a journal every few seconds; a context manager around the stage's work.

    The stage never waits for it. While the server is away it tries more and more rarely, and says so once.
    What it has not sent when it stops is left to the next `deliver`.
    """

    def __init__(self, journal: Journal, every: float = 5.0, tracking_uri: str | None = None) -> None:
        self.journal = journal
        self.every = every
        self.tracking_uri = tracking_uri
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-uploader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread; a request under way gets `timeout` seconds to end."""
        self._stop.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        root = self.journal.folder.parent.parent
        pause, size, away = self.every, 0, False
        while not self._stop.wait(pause):
            try:
                grown = (self.journal.folder / EVENTS).stat().st_size
            except FileNotFoundError:
                return  # finished, delivered and removed
            if grown == size:
                continue
            delivery = deliver(self.tracking_uri, only=[self.journal.key], timeout=10.0, root=root, quiet=True)
            if delivery.error and not away:
                print(f"{delivery.warning(root)} The stage goes on.", file=sys.stderr, flush=True)
            if away and not delivery.error:
                print("MLflow: the tracking server is back", file=sys.stderr, flush=True)
            away = delivery.error is not None
            pause = min(2 * pause, LONGEST_PAUSE) if away else self.every
            size = size if delivery.pending else grown
