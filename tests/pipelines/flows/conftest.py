"""Small DVC projects whose stages are shell commands, and the processes that they start."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Path]:
    """`project({stage: {"cmd": …, "deps": …}})` is a new DVC repository; each stage's output is the file STAGE.out."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    monkeypatch.delenv("PIPELINE_STARTED", raising=False)

    def make(stages: dict[str, Any]) -> Path:
        root = tmp_path / "project"
        (root / ".dvc").mkdir(parents=True)
        (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
        whole = {
            name: stage if "foreach" in stage else {"outs": [f"{name}.out"]} | stage for name, stage in stages.items()
        }
        YAML().dump({"stages": whole}, root / "dvc.yaml")
        return root

    return make


@pytest.fixture
def commit() -> Callable[[Path], None]:
    """`commit(root)` puts all that is in a folder into its git repository."""

    def run(root: Path) -> None:
        author = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", "add", "--all"], cwd=root, check=True)
        subprocess.run(["git", *author, "commit", "--quiet", "--message", "state"], cwd=root, check=True)

    return run


@pytest.fixture
def committed(
    project: Callable[[dict[str, Any]], Path], commit: Callable[[Path], None]
) -> Callable[[dict[str, Any]], Path]:
    """`committed({stage: …})` is such a repository with the default params.yaml and the presets, all of it in git."""

    def make(stages: dict[str, Any]) -> Path:
        root = project(stages)
        (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (root / ".gitignore").write_text("*.out\n/data/\n/.tracking/\n")
        shutil.copytree(ROOT / "presets", root / "presets")
        shutil.copyfile(ROOT / "presets" / "digits-cpu.yaml", root / "params.yaml")
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
        commit(root)
        return root

    return make


@pytest.fixture
def processes() -> Iterator[Callable[..., list[int]]]:
    """`processes(MARKER, count)` waits until as many processes have this word in their command line; returns them."""

    def find(marker: str, count: int, seconds: float = 20) -> list[int]:
        until = time.monotonic() + seconds
        while len(found := _with_word(marker)) != count and time.monotonic() < until:
            time.sleep(0.05)
        return found

    return find


def _with_word(marker: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if marker in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:  # gone since
            continue
    return found
