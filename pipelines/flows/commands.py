"""Commands in child processes, none of which outlives the process that started it."""

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipelines.tracking.secrets import mask

WATCHDOG = Path(__file__).with_name("watchdog.py")


class StoppedError(Exception):
    """The command was ended, or not started, because `stop` was called."""


class TimeoutExceededError(Exception):
    """The command was ended because its time was up."""


class Commands:
    """The commands of one flow run, from any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        timeout_seconds: float | None = None,
    ) -> int:
        """Run a command to its end, handing on each line that it writes to stdout or stderr; returns its exit code.

        Raises:
            TimeoutExceededError, StoppedError: it was ended, with every process of its group.
        """
        with self._lock:
            if self.stopped:
                raise StoppedError("not started: the flow run was ended")
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(WATCHDOG), *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # a Ctrl-C or a signal to this process's group must not end the watchdog
            )
            self._running.add(process)
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def end_late() -> None:
            late.set()
            _end(process)

        timer = threading.Timer(timeout_seconds or threading.TIMEOUT_MAX, end_late)
        timer.daemon = True
        try:
            if timeout_seconds is not None:
                timer.start()
            for line in process.stdout:
                on_line(mask(line.rstrip()))  # DVC names its remote
            code = process.wait()
        finally:
            timer.cancel()
            _end(process)
            process.stdout.close()
            process.wait()
            with self._lock:
                self._running.discard(process)
        if self.stopped:
            raise StoppedError("ended with the flow run")
        if late.is_set():
            raise TimeoutExceededError
        return code

    def stop(self) -> None:
        """End every running command, and start no other. Their `run` raises as soon as they are gone."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Close the pipe that the watchdog reads; may be repeated."""
    assert process.stdin is not None
    process.stdin.close()
