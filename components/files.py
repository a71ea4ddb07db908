"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed.

Those that earlier stages wrote are read here too, so that a damaged one is told in one message.
"""

import csv
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import DISK_FULL, MissingFileError, UserError

if TYPE_CHECKING:  # `sources` runs every time, and waits for neither
    import numpy as np
    import pyarrow as pa

LOCK = "lock"  # in a temporary folder; held while its writer lives
SUFFIX = ".tmp"
EARLIER = "An earlier stage"
NEWBORN_SECONDS = 60  # between making a temporary folder and locking it lie microseconds


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield an empty file to be written; on success it becomes `path`, on failure it is removed."""
    path = Path(path)
    with _beside(path) as temporary:
        temporary.touch()
        yield temporary
        _fsync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder to be filled; on success it replaces `path`, on failure it is removed."""
    path = Path(path)
    with _beside(path) as temporary:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _fsync(file)
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Remove what killed writers of these files and folders left beside them; a living writer's is left alone."""
    by_folder: dict[Path, set[str]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, set()).add(path.name)
    for folder, names in by_folder.items():
        for left in folder.glob(f".*.????????{SUFFIX}"):
            if left.name[1 : -len(f".????????{SUFFIX}")] in names and _is_abandoned(left):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A free place named like `path`, in a temporary folder beside it, which is removed in the end.

    A killed process can remove nothing: what it left is removed here by the next that writes the same path. The
    kernel frees the lock in the folder however the process ends, so that nobody removes a living one's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned([path])
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=SUFFIX))
    try:
        with (folder / LOCK).open("w") as lock, _disk_full_is_a_user_error(path):
            with suppress(OSError):  # a file system without locks: then nobody else can take it either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # made this moment, or by a process that was killed right then
        with suppress(OSError):
            return time.time() - folder.stat().st_mtime > NEWBORN_SECONDS
        return False
    except OSError:
        return False
    return True


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all. NaN and infinity are refused (they are not JSON)."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str, *keys: str) -> Any:
    """What a JSON file holds, or its value at `keys`. As all functions from here on, it reads what an earlier stage
    wrote and raises a UserError where that is missing or damaged."""
    with _stored(path):
        value = json.loads(Path(path).read_text())
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise ValueError(f"no {key!r}")
            value = value[key]
        return value


def read_array(path: Path | str, dtype: str, dimensions: int, mapped: bool = False) -> "np.ndarray":
    """The array of an `.npy` file, of this type and number of dimensions; `mapped` leaves it on disk."""
    import numpy as np

    with _stored(path):
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        if not isinstance(array, np.ndarray) or (array.dtype, array.ndim) != (np.dtype(dtype), dimensions):
            found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
            raise ValueError(f"expected {dtype} in {dimensions} dimensions, found {found}")
        return array


def read_arrays(
    path: Path | str, dimensions: Mapping[str, int] | None = None, writer: str = EARLIER
) -> "dict[str, np.ndarray]":
    """The arrays of an `.npz` file: these, with their number of dimensions, or all."""
    import numpy as np

    with _stored(path, writer):
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one array, expected an archive of several")
        with archive as file:
            missing = [name for name in dimensions or () if name not in file]
            if missing:
                raise ValueError(f"no array {', '.join(missing)}")
            arrays = {name: file[name] for name in dimensions or file}
        for name, expected in (dimensions or {}).items():
            if arrays[name].ndim != expected:
                raise ValueError(f"{name} has shape {arrays[name].shape}, expected {expected} dimensions")
        return arrays


def read_table(path: Path | str, columns: Collection[str] | None = None, filters: Any = None) -> "pa.Table":
    """These columns of a Parquet file, or all."""
    import pyarrow.parquet as pq

    with _stored(path):
        table = pq.read_table(path, columns=list(columns) if columns is not None else None, filters=filters)
        if missing := sorted(set(columns or ()) - set(table.column_names)):
            raise ValueError(f"no column {', '.join(missing)}")
        return table


def read_rows(path: Path | str, columns: Collection[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has at least these columns."""
    with _stored(path), Path(path).open(newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise ValueError(f"no column {', '.join(missing)}")
        rows = list(reader)
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("rows of different lengths")
        return rows


DAMAGED = (OSError, EOFError, ValueError, KeyError, RecursionError, csv.Error, zipfile.BadZipFile, zlib.error)


@contextmanager
def _stored(path: Path | str, writer: str = EARLIER) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(path, f"not found. {writer} writes it: run `dvc repro` first.") from error
    except PermissionError:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: damaged, or not what {writer[0].lower()}{writer[1:]} writes there ({reason}). "
            "Delete it and run `dvc repro`: that makes it anew."
        ) from error


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _disk_full_is_a_user_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(
            f"{path}: could not be written, the disk is full ({error.strerror}). "
            "Nothing was left behind; free some space (`dvc gc --workspace` helps) and run again."
        ) from error
