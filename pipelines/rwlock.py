"""DVC's list of the files that its commands are just reading and writing, `.dvc/tmp/rwlock`.

DVC refuses a command whose files are on it. It removes entries of processes that are gone, but takes another process
of the same number (there are few in a container) for the writer, and gives up where a kill left half a file.
"""

import json
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from components.locks import Holder

CLOCK_SECONDS = 2.0  # by how much the start of a process may be off


def clear_dead(root: Path) -> None:
    """Remove entries of processes that have ended, and a file of which a kill left half."""
    place = root / ".dvc" / "tmp" / "rwlock"
    if not place.exists():
        return
    guard = FileLock(place.with_name("rwlock.lock"))
    try:
        guard.acquire(timeout=0)
    except Timeout:  # a DVC command is just writing the list, and finds no fault with it
        return
    try:
        entries = _read(place)
        if entries is None:
            place.unlink()
            return
        since = place.stat().st_mtime
        kept = {
            "read": {path: alive for path, infos in entries.get("read", {}).items() if (alive := _alive(infos, since))},
            "write": {path: info for path, info in entries.get("write", {}).items() if _alive([info], since)},
        }
        if kept != {"read": {}, "write": {}} | entries:
            place.write_text(json.dumps(kept))
    finally:
        guard.release()


def at_work(root: Path) -> list[Holder]:
    """The living processes on the list."""
    entries = _read(root / ".dvc" / "tmp" / "rwlock") or {}
    infos = [info for readers in entries.get("read", {}).values() for info in readers]
    infos += entries.get("write", {}).values()
    found = {Holder(int(info["pid"]), str(info["cmd"])) for info in infos}
    return sorted(holder for holder in found if holder.pid is not None and psutil.pid_exists(holder.pid))


def _read(place: Path) -> dict[str, Any] | None:
    """None where half a file was left, or none is there."""
    try:
        entries = json.loads(place.read_text())
    except (OSError, ValueError):
        return None
    return entries if isinstance(entries, dict) else None


def _alive(infos: list[dict[str, Any]], since: float) -> list[dict[str, Any]]:
    """Those whose process lives and was there already when the file was last written."""
    return [info for info in infos if _started(int(info["pid"])) < since + CLOCK_SECONDS]


def _started(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return float("inf")
