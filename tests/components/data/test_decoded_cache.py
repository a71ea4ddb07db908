"""Decoded images that are kept: found as long as all that decides their pixels is the same, and never wrong."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.data.config import Source
from components.data.decoded_cache import FILE, DecodedCache, Key, keys_of
from components.data.decoders import Decoders
from components.data.image_store import Picture
from components.data.prepare import prepare
from tests.components.data.preparing import of_folder

READING: dict[str, Any] = {"image_size": 32, "channels": 3, "resize": True}
ROOT = Path(__file__).parents[3]
ROOM = 1e8


@pytest.fixture
def no_decoder_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on a process that wants to decode ends at once."""
    (tmp_path / "broken" / "PIL").mkdir(parents=True)
    (tmp_path / "broken" / "PIL" / "__init__.py").write_text("raise ImportError('nothing is to be decoded')")
    return lambda: monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))


def key(number: int) -> Key:
    return Key(number.to_bytes(32, "big"))


def picture(number: int) -> Picture:
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Picture(pixels, (f"from {number}",))


def keep(folder: Path, numbers: range, limit: float = ROOM) -> DecodedCache:
    cache = DecodedCache(folder, limit)
    with closing(cache):
        for start in range(0, len(numbers), 10):
            cache.keep([(key(number), picture(number)) for number in numbers[start : start + 10]])
    return cache


def found(folder: Path, numbers: range, limit: float = ROOM) -> list[int]:
    """Numbers of those that are found; all of these are right."""
    cache = DecodedCache(folder, limit)
    with closing(cache):
        answers = cache.look_up([key(number) for number in numbers], 32, 3, None)
    numbers_found = []
    for number, answer in zip(numbers, answers, strict=True):
        if answer is not None:
            assert answer.converted == picture(number).converted
            np.testing.assert_array_equal(answer.pixels, picture(number).pixels)
            numbers_found.append(number)
    assert (cache.taken, cache.asked) == (len(numbers_found), len(numbers))
    return numbers_found


@pytest.mark.parametrize("finer", [None, 20])
def test_what_is_the_same_is_not_decoded_again(
    image_folder: Callable[..., Path], tmp_path: Path, no_decoder_starts: Callable[[], None], finer: int | None
) -> None:
    config = of_folder(image_folder("pets", cat=6, dog=6), resize=True, stored_size=finer)
    caches = [DecodedCache(tmp_path / "cache", ROOM) for _ in range(3)]
    content = []
    for cache in (None, *caches[:2]):
        prepare(config, 0, tmp_path / "prepared", 2, cache=cache)
        content.append({file.name: file.read_bytes() for file in (tmp_path / "prepared").iterdir()})
        if cache is caches[0]:
            no_decoder_starts()
    assert content[0] == content[1] == content[2]
    Image.open(tmp_path / "pets" / "cat" / "003.png").save(tmp_path / "pets" / "dog" / "new.bmp")
    with pytest.raises(RuntimeError, match="could not start"):  # for the new one
        prepare(config, 0, tmp_path / "prepared", 2, cache=caches[2])
    assert [(cache.taken, cache.asked) for cache in caches] == [(0, 12), (12, 12), (12, 13)]


def test_contents_are_found_wherever_they_lie_and_pixels_and_lost_files_are_not_asked_for(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    file = image_folder("pets", 1) / "000.png"
    files = [file, file.read_bytes(), np.zeros((8, 8), np.uint8), tmp_path / "lost.png"]
    with closing(DecodedCache(tmp_path / "cache", ROOM)) as cache:
        for _ in range(2):
            with closing(Decoders(READING, 1, cache)) as decoders:
                last = list(decoders.decode(files, 4))
        assert (cache.taken, cache.asked) == (2, 4)
    assert [type(answer) for answer in last] == [Picture, Picture, Picture, str]


def test_other_settings_are_other_keys(image_folder: Callable[..., Path]) -> None:
    files = sorted(image_folder("pets", 2).iterdir())
    readings = [READING, READING | {"image_size": 16}, READING | {"fit": "pad"}]
    keys = [key for reading in readings for finer in (None, 64) for key in keys_of(files, reading, finer)]
    assert len({key.digest for key in keys if key}) == 12
    assert keys_of(files, dict(reversed(READING.items())), None) == keys[:2]


def test_a_file_that_was_written_since_is_not_kept(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    file = image_folder("pets", 1) / "000.png"
    (before,) = keys_of([file], READING, None)
    assert before is not None
    file.write_bytes(file.read_bytes() + b"more")
    with closing(DecodedCache(tmp_path / "cache", ROOM)) as cache:
        cache.keep([(before, picture(0))])
        assert cache.look_up([before], 32, 3, None) == [None]


def test_the_least_recently_used_give_way_and_those_of_this_run_never(tmp_path: Path) -> None:
    limit = 300_000  # bytes: fewer than 70 images
    first = keep(tmp_path, range(50), limit)
    assert found(tmp_path, range(50), limit) == list(range(50))
    assert found(tmp_path, range(20), limit) == list(range(20)), "are used again"
    for number in range(1000, 1025):
        keep(tmp_path, range(number, number + 1), limit)
    left = found(tmp_path, range(50), limit)
    assert left[:20] == list(range(20))
    assert len(left) < 50
    assert found(tmp_path, range(1000, 1025), limit) == list(range(1000, 1025))
    assert (tmp_path / FILE).stat().st_size <= limit
    with closing(first):  # this run began before all others
        first.keep([(key(number), picture(number)) for number in range(2000, 2100)])
    assert found(tmp_path, range(1000, 1025), limit) == list(range(1000, 1025))


def test_of_a_set_larger_than_the_cache_a_part_is_found(tmp_path: Path) -> None:
    for _ in range(3):
        with closing(DecodedCache(tmp_path, 200_000)) as cache:
            for start in range(0, 200, 10):
                numbers = range(start, start + 10)
                answers = cache.look_up([key(number) for number in numbers], 32, 3, None)
                missing = [(key(n), picture(n)) for n, answer in zip(numbers, answers, strict=True) if answer is None]
                cache.keep(missing)
    assert 10 <= cache.taken < 200


def test_a_lower_limit_shrinks_the_file(tmp_path: Path) -> None:
    keep(tmp_path, range(100))
    before = (tmp_path / FILE).stat().st_size
    keep(tmp_path, range(100, 101), before / 4)
    assert (tmp_path / FILE).stat().st_size <= before / 4
    assert found(tmp_path, range(100, 101)) == [100]


def test_whatever_is_damaged_is_not_used(tmp_path: Path) -> None:
    """A byte here and there, anywhere in the file: what is found is right, and the run after the next finds all."""
    keep(tmp_path / "whole", range(30))
    whole = (tmp_path / "whole" / FILE).read_bytes()
    rng = np.random.default_rng(0)
    lost = 0
    for attempt in range(40):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        damaged = bytearray(whole)
        for place in rng.integers(0, (len(whole), 2000)[attempt % 2], 5):
            damaged[place] ^= 1 << rng.integers(8)
        (folder / FILE).write_bytes(damaged[: len(damaged) // 2] if attempt % 7 == 0 else damaged)
        lost += 30 - len(found(folder, range(30)))
        keep(folder, range(30))  # which notices
        keep(folder, range(30))
        assert found(folder, range(30)) == list(range(30))
    assert lost > 40


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" * 99])
def test_another_file_in_its_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert found(tmp_path, range(3)) == []
    for _ in range(2):
        keep(tmp_path, range(3))
    assert found(tmp_path, range(3)) == [0, 1, 2]


def test_a_folder_that_cannot_be_made_is_told_and_stops_nobody(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = DecodedCache(tmp_path / "file" / "cache", ROOM)
    prepare(of_folder(image_folder("pets", cat=5, dog=5)), 0, tmp_path / "prepared", 2, cache=cache)
    assert cache.taken == 0
    assert "can't be used" in cache.trouble


WRITER = """
import sys
from pathlib import Path
from tests.components.data.test_decoded_cache import DecodedCache, key, picture

cache = DecodedCache(Path(sys.argv[1]), float(sys.argv[2]))
for number in range(10**6):
    numbers = range(7 * number % 300, 7 * number % 300 + 7)
    keys = [key(n) for n in numbers]
    answers = cache.look_up(keys, 32, 3, None)
    cache.keep([(key(n), picture(n)) for n, answer in zip(numbers, answers) if answer is None])
    if number == int(sys.argv[3]):
        print(cache.trouble or "at work", flush=True)
"""


def test_processes_may_share_it_and_be_killed_anywhere(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for limit in (300_000, 400_000):
        commands = [[sys.executable, "-c", WRITER, tmp_path, str(limit), str(after)] for after in (40, 61, 83)]
        writers = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True, env=environment) for c in commands]
        for writer in writers:
            with writer:
                assert writer.stdout is not None
                assert writer.stdout.readline() == "at work\n"
                writer.send_signal(signal.SIGKILL)
        assert len(found(tmp_path, range(307))) > 20
        with closing(sqlite3.connect(tmp_path / FILE)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert found(tmp_path, range(307), ROOM)


def test_images_of_a_source_without_files_need_no_cache(tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path / "cache", ROOM)
    config = of_folder(tmp_path, labelled=Source(builtin="digits", limit=100))
    prepare(config, 0, tmp_path / "prepared", 2, cache=cache)
    assert cache.asked == 0
    assert not (tmp_path / "cache").exists()
