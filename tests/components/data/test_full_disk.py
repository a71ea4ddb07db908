"""A disk that fills up while the data set is written: one message, nothing left behind, the old result untouched."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.data.config import DataConfig, Source
from components.data.prepare import prepare
from components.errors import UserError

DIGITS = DataConfig(image_size=8, channels=1, labelled=Source(builtin="digits"))

LIMITED = """
import resource, sys
from pathlib import Path
from components.data.prepare import prepare
from components.errors import UserError
from test_full_disk import DIGITS

resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    prepare(DIGITS, 0, Path(sys.argv[1]), 2)
except UserError as error:
    print(error)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", mount], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    out = small_disk / "prepared"
    out.mkdir()
    (out / "dataset.json").write_text("of an earlier run")
    with pytest.raises(UserError, match=r"prepared: could not be written, the disk is full.*Nothing was left behind"):
        prepare(DIGITS, 0, out, 2)
    assert [path.relative_to(small_disk).as_posix() for path in sorted(small_disk.rglob("*"))] == [
        "prepared",
        "prepared/dataset.json",
    ]


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, tmp_path / "out" / "prepared"]
    here = Path(__file__)
    path = f"{here.parents[3]}:{here.parent}"
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}, check=True
    )
    assert "the disk is full" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []
