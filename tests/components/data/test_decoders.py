"""Decoding in several processes: same answers in the same order, whatever becomes of a process."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from components.data.decode import decode_noting
from components.data.decoders import Decoders
from components.data.image_store import Picture

READING: dict[str, Any] = {"image_size": 8, "channels": 3, "resize": True}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def files(tmp_path: Path, noise: Callable[..., np.ndarray]) -> list[Path | bytes | np.ndarray]:
    """Places, contents and pixels; some are no images."""
    found: list[Path | bytes | np.ndarray] = []
    for number in range(150):
        image = Image.fromarray(noise(number, 8 + number % 5))
        if number % 3 == 0:
            image.putalpha(number)
        path = tmp_path / f"{number}.png"
        image.save(path)
        found.append([path, path.read_bytes(), np.asarray(image.convert("RGB"))][number % 3])
    return [*found, tmp_path / "missing.png", b"", b"no image"]


def answers(files: list[Any], processes: int) -> list[Picture | str]:
    with closing(Decoders(READING, processes)) as decoders:
        return list(decoders.decode(iter(files), len(files)))


def test_the_number_of_processes_changes_nothing(files: list[Any]) -> None:
    one, three = answers(files, 1), answers(files, 3)
    for file, first, second in zip(files[:-3], one, three, strict=False):
        expected = decode_noting(file, **READING)
        assert isinstance(first, Picture)
        assert isinstance(second, Picture)
        assert first.converted == second.converted == expected.converted
        np.testing.assert_array_equal(first.pixels, expected.pixels)
        np.testing.assert_array_equal(second.pixels, expected.pixels)
    assert one[-3:] == three[-3:]
    assert one[-3:-1] == ["can't be read: No such file or directory", "empty file"]
    assert len(one) == len(three) == len(files)


def test_no_more_files_are_read_ahead_than_the_processes_need(files: list[Any]) -> None:
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield files[1]

    with closing(Decoders(READING, 2)) as decoders:
        for _, _ in zip(range(1000), decoders.decode(endless(), 10_000), strict=False):
            assert taken < 2000


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An image that kills whatever process decodes it; a process starts with the module in the way that knows it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, PIL.Image\n"
        "real = PIL.Image.open\n"
        "def open(file, *rest, **options):\n"
        "    image = real(file, *rest, **options)\n"
        "    if image.info.get('Comment') == 'kill':\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return image\n"
        "PIL.Image.open = open\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from PIL.PngImagePlugin import PngInfo

    comment, buffer = PngInfo(), io.BytesIO()
    comment.add_text("Comment", "kill")
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=comment)
    return buffer.getvalue()


def test_a_file_that_kills_its_process_is_named_and_no_other(files: list[Any], killer: bytes) -> None:
    expected = answers(files, 2)
    deadly = [*files[:40], killer, *files[40:], killer]
    found = answers(deadly, 2)
    assert found[40] == found[-1] == "its decoder was ended by SIGSEGV"
    for got, wanted in zip([*found[:40], *found[41:-1]], expected, strict=True):
        assert type(got) is type(wanted)
        if isinstance(wanted, Picture):
            np.testing.assert_array_equal(got.pixels, wanted.pixels)


def test_processes_that_cannot_start_are_no_fault_of_the_files(
    files: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ImportError('no Pillow here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"could not start: an exit with code 1"):
        answers(files, 2)


ENDLESS = """
import itertools, sys
from contextlib import closing
from pathlib import Path
from components.data.decoders import Decoders

with closing(Decoders({"image_size": 8, "channels": 3, "resize": True}, 2)) as decoders:
    for number, _ in enumerate(decoders.decode(itertools.repeat(Path(sys.argv[1])), 10_000)):
        if number == 500:
            print("going", flush=True)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_starter(files: list[Any], ending: signal.Signals) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, files[0]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stderr is not None
        assert starter.stdout.readline() == "going\n"
        workers = psutil.Process(starter.pid).children(recursive=True)
        assert len(workers) == 2
        starter.send_signal(ending)
        errors = starter.stderr.read()  # ends when the last process does that could write there
    assert errors.count("Traceback") == (ending == signal.SIGINT)
    deadline = time.monotonic() + 30
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
