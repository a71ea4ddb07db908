"""Writers that meet each other or are killed, and files of earlier stages that are damaged."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError, os_errors_explained
from components.files import (
    atomic_directory,
    atomic_file,
    read_array,
    read_arrays,
    read_json,
    read_rows,
    read_table,
    write_json,
)

ROOT = Path(__file__).parents[2]
WRITE = """
import sys
from pathlib import Path
from components.files import atomic_directory, atomic_file
with globals()[sys.argv[1]](Path(sys.argv[2])) as temporary:
    (temporary / "part" if sys.argv[1] == "atomic_directory" else temporary).write_text("other")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """`writer(KIND)` is another process in the middle of writing `tmp_path/out`, until its standard input is closed."""
    started = []

    def start(kind: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, kind, tmp_path / "out"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def write(kind: str, out: Path) -> None:
    if kind == "atomic_file":
        with atomic_file(out) as temporary:
            temporary.write_text("mine")
    else:
        with atomic_directory(out) as temporary:
            (temporary / "part").write_text("mine")


def written(kind: str, out: Path) -> str:
    return (out if kind == "atomic_file" else out / "part").read_text()


@pytest.mark.parametrize("kind", ["atomic_file", "atomic_directory"])
def test_a_living_writer_is_left_alone(writer, tmp_path, kind):
    other = writer(kind)
    write(kind, tmp_path / "out")
    assert written(kind, tmp_path / "out") == "mine"
    _, told = other.communicate(timeout=20)
    assert other.returncode == 0, told
    assert written(kind, tmp_path / "out") == "other"  # the last one is there, whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["atomic_file", "atomic_directory"])
def test_a_killed_writers_remains_are_removed_by_the_next(writer, tmp_path, kind):
    other = writer(kind)
    other.kill()
    other.wait()
    assert len(list(tmp_path.iterdir())) == 1
    assert not (tmp_path / "out").exists()
    write(kind, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_hidden_files_are_nobodys_remains(tmp_path):
    """Such as an editor's, or a backup of the user's."""
    mine = [tmp_path / ".out.swp", tmp_path / ".out.old" / "kept", tmp_path / ".output.12345678.tmp" / "lock"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    write("atomic_file", tmp_path / "out")
    (tmp_path / "out").unlink()
    write("atomic_directory", tmp_path / "out")
    assert all(path.exists() for path in mine)


def test_what_fails_leaves_the_earlier_file(tmp_path):
    write_json(tmp_path / "out", 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "out", float("nan"))
    assert read_json(tmp_path / "out") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


ARRAY = np.zeros((4, 2), np.float32)
OBJECTS = np.array([{"a": 1}, None], dtype=object)


def save_table(path: Path, **columns: list[int]) -> None:
    pq.write_table(pa.table(columns), path)


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {  # what reads, and what writes a good one
    "json": (lambda path: read_json(path, "a", "b"), lambda path: path.write_text('{"a": {"b": 1}}')),
    "npy": (lambda path: read_array(path, "float32", 2), lambda path: np.save(path, ARRAY)),
    "mapped.npy": (lambda path: read_array(path, "float32", 2, mapped=True), lambda path: np.save(path, ARRAY)),
    "npz": (lambda path: read_arrays(path, {"x": 2}), lambda path: np.savez(path, x=ARRAY)),
    "parquet": (lambda path: read_table(path, ["x"]), lambda path: save_table(path, x=[1])),
    "csv": (lambda path: read_rows(path, ["x", "y"]), lambda path: path.write_text("x,y\n1,2\n33333,4\n5")),
}
DAMAGE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "cut off": ("", lambda path: None),  # whatever the kind
    "empty": ("", lambda path: path.write_bytes(b"")),
    "no json": ("json", lambda path: path.write_text("{")),
    "no such key": ("json", lambda path: path.write_text('{"a": {}}')),
    "not a mapping": ("json", lambda path: path.write_text('{"a": [1]}')),
    "other numbers": ("npy", lambda path: np.save(path, ARRAY.astype(int))),
    "other shape": ("npy", lambda path: np.save(path, ARRAY[0])),
    "objects": ("npy", lambda path: np.save(path, OBJECTS, allow_pickle=True)),
    "an archive": ("npy", lambda path: np.savez(path.open("wb"), x=ARRAY)),
    "without it": ("npz", lambda path: np.savez(path, y=ARRAY)),
    "another shape": ("npz", lambda path: np.savez(path, x=ARRAY[0])),
    "pickled": ("npz", lambda path: np.savez(path, x=OBJECTS)),
    "one array": ("npz", lambda path: np.save(path.open("wb"), ARRAY)),
    "garbage": ("npz", lambda path: path.write_bytes(b"PK\x03\x04" + b"garbage" * 20)),
    "other columns": ("parquet", lambda path: save_table(path, y=[1])),
    "another header": ("csv", lambda path: path.write_text("x,z\n1,2\n")),
}
CASES = [(kind, name) for kind in READERS for name, (of, _) in DAMAGE.items() if not of or kind.endswith(of)]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_damaged_file_is_one_message(tmp_path, kind, name):
    path = tmp_path / f"file.{kind}"
    read, make = READERS[kind]
    make(path)
    if kind != "csv":
        read(path)
    cut(path) if name == "cut off" else DAMAGE[name][1](path)
    with pytest.raises(UserError) as told:
        read(path)
    assert str(told.value).startswith(f"{path}: damaged, or not what an earlier stage writes there (")
    assert "run `dvc repro`" in str(told.value)


@pytest.mark.parametrize("kind", READERS)
def test_a_missing_file_is_one_message(tmp_path, kind):
    with pytest.raises(UserError, match=r"not found\. An earlier stage"):
        READERS[kind][0](tmp_path / "nothing")


def test_good_files_are_read(tmp_path):
    (tmp_path / "x.csv").write_text("x,y\n1,2\n")
    assert read_rows(tmp_path / "x.csv", ["x"]) == [{"x": "1", "y": "2"}]
    (tmp_path / "x.json").write_text(json.dumps({"a": {"b": [1]}}))
    assert read_json(tmp_path / "x.json", "a", "b") == [1]
    np.savez(tmp_path / "x.npz", x=ARRAY, y=ARRAY)
    assert set(read_arrays(tmp_path / "x.npz")) == {"x", "y"}
    assert set(read_arrays(tmp_path / "x.npz", {"y": 2})) == {"y"}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "a/b"), "a/b: Permission denied. It must be writable"),
        (OSError(30, "Read-only file system", "a/b"), "a/b: Read-only file system. It must be writable"),
        (OSError(5, "Input/output error", "a/b"), "a/b: Input/output error. Put that right"),
        (OSError(28, "No space left on device"), "No space left on device. Free some space"),
    ],
)
def test_what_the_system_refuses_is_one_message(error, told):
    with pytest.raises(UserError, match=told), os_errors_explained():
        raise error


def test_an_error_without_a_file_stays_as_it_is():
    with pytest.raises(ConnectionResetError), os_errors_explained():
        raise ConnectionResetError(104, "Connection reset by peer")
