"""`python -m pipelines repro` beside other commands and on a full disk, in projects whose stages are shell commands."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
WAITS = "echo run >> runs; for i in $(seq 600); do [ -e go ] && touch {0}.out && exit; sleep 0.05; done; exit 1"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A DVC repository whose stage `slow` waits for the file `go`."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    stages(root, slow={"cmd": WAITS.format("slow"), "outs": ["slow.out"]})
    return root


def stages(root: Path, **stages: dict[str, object]) -> None:
    YAML().dump({"stages": stages}, root / "dvc.yaml")


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Start]:
    """`start(WORD, …)` is a command in the project, whose messages are read from its stderr."""
    own = {"PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(tmp_path / "site"), "PYTHONUNBUFFERED": "1"}
    started = []

    def run(*command: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=root, env=os.environ | own, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


REPRO = (sys.executable, "-m", "pipelines", "repro")
DVC = (sys.executable, "-m", "dvc", "repro")


def until_it_runs(root: Path, process: subprocess.Popen[str]) -> None:
    while not (root / "runs").exists():
        assert process.poll() is None, process.communicate()


def wait_told(process: subprocess.Popen[str]) -> str:
    """What a command says when it begins to wait."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Waiting for "):
            return line
    raise AssertionError("it did not wait")


@pytest.mark.parametrize("first", [REPRO, DVC], ids=["another", "plain dvc repro"])
def test_it_waits_for(start, root, first):
    """DVC itself would refuse: "is busy, it is being blocked by"."""
    before = start(*first)
    until_it_runs(root, before)
    after = start(*REPRO)
    assert wait_told(after).startswith(f"Waiting for process {before.pid} (")
    (root / "go").touch()
    for process in (before, after):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert (root / "runs").read_text() == "run\n"


def test_a_killed_ones_traces_hinder_nobody(start, root):
    """Its number may be that of another process by now."""
    (root / ".dvc" / "tmp").mkdir()
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    rwlock.write_text(json.dumps({"write": {str(root / "slow.out"): {"pid": os.getpid(), "cmd": "dvc repro"}}}))
    os.utime(rwlock, (0, 0))
    (root / "go").touch()
    process = start(*REPRO)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err


def test_a_mistake_in_params_yaml_is_told_first(start, root):
    (root / "params.yaml").write_text("sede: 0\n")
    process = start(*REPRO)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("error: params.yaml: ")
    assert not (root / "runs").exists()


def test_a_failing_stage_is_told_by_its_own_words_and_dvcs(start, root):
    stages(root, broken={"cmd": "echo 'error: no images' >&2; exit 3", "outs": ["x.out"]})
    process = start(*REPRO)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[0] == "error: no images"
    assert err.splitlines()[1].startswith("ERROR: failed to reproduce 'broken': failed to run: echo")
    assert len(err.splitlines()) == 2


@pytest.fixture
def cache(root: Path, tmp_path: Path) -> Iterator[Path]:
    """DVC's cache on a disk of 200 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", mount], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    with (root / ".dvc" / "config").open("a") as config:
        config.write(f"[cache]\n    dir = {mount / 'cache'}\n    type = copy\n")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_cache_is_one_message_and_the_next_run_goes_on(start, root, cache):
    files = "mkdir big; for i in 1 2 3 4; do head -c 90000 /dev/urandom > big/$i; done"
    stages(root, big={"cmd": files, "outs": ["big"]}, after={"cmd": "touch after.out", "deps": ["big"]})
    process = start(*REPRO)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith(
        f"error: failed to reproduce 'big': DVC's cache ({cache / 'cache'}) has no room for the results"
    )
    assert "Running stage 'after'" not in out
    unfinished = [str(path) for path in cache.rglob(".*.tmp")]
    assert any(path in line for path in unfinished)
    assert sorted(path.name for path in (root / "big").iterdir()) == ["1", "2", "3", "4"]

    subprocess.run(["mount", "-o", "remount,size=5m", cache], check=True)
    again = start(*REPRO)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "Running stage 'after'" in out
    kept = {path.name: path.stat().st_size for path in (cache / "cache" / "files").rglob("*") if path.is_file()}
    assert sorted(size for name, size in kept.items() if not name.startswith("."))[-4:] == [90_000] * 4
