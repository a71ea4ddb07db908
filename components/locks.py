"""Locks between processes of one machine: a lock file names its holder, and the kernel frees it however that ends."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

POLL_SECONDS = 0.1
NAMING_SECONDS = 1.0  # between taking a lock and naming its holder lie microseconds
ENDING_SECONDS = 5.0  # a killed holder's lock is free once the processes that it was just starting have started


class Holder(NamedTuple):
    """Who holds a lock, as far as its file tells."""

    pid: int | None
    command: str

    def __str__(self) -> str:
        return f"{self.process} ({self.command})" if self.command else self.process

    @property
    def process(self) -> str:
        return "another process" if self.pid is None else f"process {self.pid}"

    @property
    def has_ended(self) -> bool:
        if self.pid is None:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            pass
        return False


class HeldError(Exception):
    """Another process holds the lock."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(str(holder))
        self.holder = holder


@contextmanager
def locked(
    path: Path, on_wait: Callable[[Holder], None] = lambda _: None, seconds: float = -1, note: str = ""
) -> Iterator[None]:
    """Hold a lock file, which stays when the lock is freed; other processes wait.

    Args:
        path: the file; its folder is made.
        on_wait: called once, with the present holder, where there is one.
        seconds: to wait at most; -1 without a limit.
        note: what the others are told besides this process's number and command.

    Raises:
        HeldError: the time has passed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, poll_interval=POLL_SECONDS)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = _holder(path)
            if seconds:
                on_wait(holder)
            lock.acquire(timeout=max(seconds, ENDING_SECONDS) if holder.has_ended and seconds >= 0 else seconds)
    except Timeout as error:
        raise HeldError(_holder(path)) from error
    try:
        command = shlex.join(sys.orig_argv) + (f", {note}" if note else "")
        path.write_text(json.dumps({"pid": os.getpid(), "command": command}))
        yield
    finally:
        with suppress(OSError):
            os.truncate(path, 0)
        lock.release()


def _holder(path: Path) -> Holder:
    """What the lock file says; one that has just been taken is given a moment to say it."""
    deadline = time.monotonic() + NAMING_SECONDS
    while True:
        try:
            return Holder(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            if time.monotonic() > deadline:
                return Holder(None, "")
            time.sleep(0.01)
