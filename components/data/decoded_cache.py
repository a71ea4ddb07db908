"""Decoded images kept between runs, so that files which did not change are not decoded again when others come.

An entry's key is the SHA-256 of all that decides its pixels: the file's bytes, the settings, the decoders' versions and
code. The entries are in one SQLite file, which several processes may use and which survives a kill anywhere. Whatever
goes wrong with it costs time alone: what cannot be had from it whole is decoded again.
"""

import functools
import hashlib
import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from components.data.image_store import Picture

T = TypeVar("T")
FILE = "images.sqlite"
DECODERS = ("pillow", "simplejpeg", "pillow-heif", "numpy")
CODE = Path(__file__).with_name("decode.py")
PAGE = 4096  # bytes
CHUNK = 1 << 20  # bytes of a file that are read together
WAIT_SECONDS = 10  # for another process that is writing
THROWN_OUT_TOGETHER = 16  # entries
SCHEMA = f"""
PRAGMA page_size = {PAGE};
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = TRUNCATE;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, key BLOB UNIQUE, used INTEGER);
CREATE INDEX IF NOT EXISTS by_use ON entries (used);
CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY, checksum INTEGER, converted BLOB, pixels BLOB, finer BLOB);
"""  # synchronous: a power cut may damage the file, which is noticed; waiting for the disk would cost too much
FIND = "SELECT id, checksum, converted, pixels, finer FROM entries JOIN images USING (id) WHERE key = ?"
TOUCH = "UPDATE entries SET used = max(used, ?) WHERE id = ?"
ENTER = "INSERT INTO entries (key, used) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET used = excluded.used"
STORE = "INSERT OR REPLACE INTO images SELECT id, ?, ?, ?, ? FROM entries WHERE key = ?"
OLDEST = "SELECT id FROM entries WHERE used < ? ORDER BY used LIMIT ?"
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
NOT_HERE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR)


class Key(NamedTuple):
    """Which image, and the file as it was when its bytes were read."""

    digest: bytes
    path: Path | None = None
    state: tuple[int, ...] = ()

    def still_holds(self) -> bool:
        """Whether the file has not been written meanwhile."""
        try:
            return self.path is None or _state(self.path.stat()) == self.state
        except OSError:
            return False


class DecodedCache:
    """Images by their keys in a folder, which is made with the first image.

    Full, it gives up what was not used for longest. What this run has used or kept stays, so that of a set that is
    larger than the cache a part is found the next time.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        """`limit` is in bytes."""
        self.taken = self.asked = 0  # images that were found, of so many
        self.trouble = ""  # why it is not used any more, if so
        self._file, self._limit, self._now = folder / FILE, limit, time.time_ns()
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # one connection, several threads
        self._full = False

    def look_up(self, keys: Sequence[Key | None], side: int, channels: int, finer: int | None) -> list[Picture | None]:
        """The images of these keys, None where there is none that is whole."""

        def find(database: sqlite3.Connection) -> list[Picture | None]:
            found: list[Picture | None] = []
            for key in keys:
                row = None if key is None else database.execute(FIND, (key.digest,)).fetchone()
                if row is None or key is None or not _is_whole(key, row):
                    found.append(None)
                    continue
                converted, pixels, larger = row[2:]
                picture = Picture(_image(pixels, side, channels), tuple(json.loads(converted)))
                found.append(picture._replace(finer=_image(larger, finer, channels)) if finer else picture)
                database.execute(TOUCH, (self._now, row[0]))
            return found

        found: list[Picture | None] = [None] * len(keys)
        if self._file.exists():
            found = self._attempt(find, found)
        with self._lock:
            self.asked += sum(key is not None for key in keys)
            self.taken += sum(picture is not None for picture in found)
        return found

    def keep(self, pictures: Sequence[tuple[Key, Picture]]) -> None:
        """Add images as far as there is room, but for those whose file has been written since its bytes were read."""

        def add(database: sqlite3.Connection) -> None:
            rows = [(key, _row(key, picture)) for key, picture in pictures if key.still_holds()]
            if not self._make_room(database, sum(sum(map(len, row[1:])) + PAGE for _, row in rows)):
                self._full = True
                return
            for key, row in rows:
                database.execute(ENTER, (key.digest, self._now))
                database.execute(STORE, (*row, key.digest))

        if pictures and not self._full:
            self._attempt(add, None)

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        with self._lock:
            self._close()

    def _attempt(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What some work on the file gives, in one transaction: all of it happens or nothing."""
        with self._lock:
            if self.trouble:
                return otherwise
            try:
                self._database = self._database or self._open()
                with self._database as database:
                    database.execute("BEGIN IMMEDIATE")
                    return work(database)
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
                return otherwise

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        database.executescript(SCHEMA)
        if _count(database, "page_count") * PAGE > self._limit:  # which was larger before
            self._make_room(database, 0)
            database.executescript("PRAGMA incremental_vacuum")
        return database

    def _make_room(self, database: sqlite3.Connection, size: float) -> bool:
        """Throw out the oldest entries until there is room for so many bytes; whether there is."""
        while (_count(database, "page_count") - _count(database, "freelist_count")) * PAGE + size > self._limit:
            oldest = database.execute(OLDEST, (self._now, THROWN_OUT_TOGETHER)).fetchall()
            if not oldest:
                return False
            for table in ("images", "entries"):
                database.executemany(f"DELETE FROM {table} WHERE id = ?", oldest)
        return True

    def _give_up(self, error: sqlite3.Error | OSError) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & 0xFF  # without what it is in detail
        if code in BUSY:
            return
        if code == sqlite3.SQLITE_FULL:
            self._full = True
            return
        self._close()
        self.trouble = f"{self._file} can't be used ({error})"
        if code not in NOT_HERE:  # damaged, or of another version
            for file in (self._file, self._file.with_name(f"{FILE}-journal")):
                file.unlink(missing_ok=True)
            self.trouble = f"{self._file} was damaged ({error}); it is begun anew by the next run"

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None


def keys_of(files: Sequence[Any], reading: Mapping[str, Any], finer: int | None) -> list[Key | None]:
    """The key of each file, given as content or path, read with these arguments of `decode`; None of pixels, and of
    what can't be read."""
    settings = hashlib.sha256(json.dumps([dict(reading), finer, _decoders()], sort_keys=True).encode())
    return [_key(file, settings.copy()) for file in files]


def _key(file: Any, digest: "hashlib._Hash") -> Key | None:
    if isinstance(file, bytes):
        digest.update(file)
        return Key(digest.digest())
    if not isinstance(file, Path):
        return None
    try:
        with file.open("rb", buffering=0) as opened:
            state = _state(os.fstat(opened.fileno()))
            while chunk := opened.read(CHUNK):
                digest.update(chunk)
    except OSError:
        return None
    return Key(digest.digest(), file, state)


@functools.cache
def _decoders() -> list[str]:
    """Versions and code of those that decode."""

    def version_of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return ""

    return [*map(version_of, DECODERS), hashlib.sha256(CODE.read_bytes()).hexdigest()]


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _row(key: Key, picture: Picture) -> tuple[int, bytes, bytes, bytes]:
    content = (
        json.dumps(picture.converted).encode(),
        picture.pixels.tobytes(),
        b"" if picture.finer is None else picture.finer.tobytes(),
    )
    return (_checksum(key, content), *content)


def _is_whole(key: Key, row: tuple[Any, ...]) -> bool:
    _, checksum, *content = row
    return all(isinstance(part, bytes) for part in content) and checksum == _checksum(key, content)


def _checksum(key: Key, content: Sequence[bytes]) -> int:
    return functools.reduce(lambda value, part: zlib.crc32(part, value), content, zlib.crc32(key.digest))


def _image(content: bytes, side: int, channels: int) -> np.ndarray:
    return np.frombuffer(content, np.uint8).reshape(side, side, channels)


def _count(database: sqlite3.Connection, what: str) -> int:
    return int(database.execute(f"PRAGMA {what}").fetchone()[0])
