"""The read side of tracking on disk: which journals wait, what is in them, how far each was delivered."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.files import write_json
from pipelines.tracking.checks import EVENTS, MAX_TIME, shortened

CURSOR, LOCK = "cursor.json", "upload.lock"
NEWBORN_SECONDS = 600  # a journal that is being created takes milliseconds


@dataclass(frozen=True)
class Event:
    """One line of a journal; `end` is the offset of the byte after it."""

    kind: str
    time: int  # milliseconds since 1970
    fields: dict[str, Any]
    end: int


@dataclass(frozen=True)
class Cursor:
    """How far a journal was delivered, and to which run of which tracking server."""

    uri: str  # without its password, and a fingerprint of all of it
    run_id: str
    offset: int = 0


def waiting(root: Path) -> list[str]:
    """Keys of the journals on disk, oldest first: a run begins after those that it refers to."""
    journals = root / "journals"
    if not journals.is_dir():
        return []
    found = [folder for folder in journals.iterdir() if (folder / EVENTS).exists() and folder.name[0] != "."]
    return [folder.name for folder in sorted(found, key=lambda folder: (_begun(folder), folder.name))]


def _begun(folder: Path) -> int:
    """When its run began, in milliseconds since 1970; 0 for a journal that cannot tell, or is gone by now."""
    try:
        with (folder / EVENTS).open("rb") as file:
            return int(json.loads(file.readline())["time"])
    except (FileNotFoundError, LookupError, TypeError, ValueError):
        return 0


def read_events(folder: Path) -> list[Event]:
    """All events so far. A last line without its end (its writer was killed, or is at it) is left out.

    Raises:
        UserError: a line is no event.
    """
    with (folder / EVENTS).open("rb") as file:
        lines = file.readlines()
    events, offset = [], 0
    for line in lines:
        offset += len(line)
        if line.endswith(b"\n"):
            events.append(_event(line, offset, folder / EVENTS))
    return events


def _event(line: bytes, end: int, path: Path) -> Event:
    try:
        fields = json.loads(line)
        kind, time = fields.pop("event"), fields.pop("time")
        if type(kind) is not str or type(time) is not int or not 0 <= time <= MAX_TIME:
            raise ValueError("`event` is no text, or `time` no time in milliseconds")
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
        number = path.read_bytes()[:end].count(b"\n")
        raise UserError(f"{path}, line {number}: no event of a journal ({shortened(error)}).") from error
    return Event(kind, time, fields, end)


def is_written(folder: Path) -> bool:
    """Whether the process that writes this journal is alive and has not finished it."""
    with (folder / EVENTS).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def load_cursor(folder: Path, uri: str) -> Cursor | None:
    """Where the delivery to this server stands; None where it has not begun (or went to another server)."""
    path = folder / CURSOR
    cursor = Cursor(**json.loads(path.read_text())) if path.exists() else None
    return cursor if cursor and cursor.uri == uri else None


def save_cursor(folder: Path, cursor: Cursor) -> None:
    write_json(folder / CURSOR, asdict(cursor))


@contextmanager
def delivering(folder: Path, wait: float) -> Iterator[bool]:
    """Hold the right to deliver this journal; yields False if another process has it, or the journal is gone."""
    deadline = time.monotonic() + wait
    try:
        lock = (folder / LOCK).open("a")
    except FileNotFoundError:
        yield False
        return
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.1)
            else:
                yield _is_still(lock.fileno(), folder / LOCK)  # whoever had it may have delivered and removed it all
                return


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at this path: another try's journal may have taken the folder's name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def remove(folder: Path) -> None:
    """Remove a delivered journal: first out of sight in one step, then its files."""
    trash = folder.with_name(f".done-{folder.name}")
    folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what interruptions left: delivered journals half removed, new ones that never got their first line."""
    for trash in (root / "journals").glob(".done-*"):
        shutil.rmtree(trash, ignore_errors=True)
    for newborn in (root / "journals").glob(".new-*"):
        with suppress(FileNotFoundError):  # it has got its name this moment
            old = time.time() - newborn.stat().st_mtime > NEWBORN_SECONDS
            if old or ((newborn / EVENTS).exists() and (newborn / EVENTS).stat().st_size and not is_written(newborn)):
                shutil.rmtree(newborn, ignore_errors=True)
