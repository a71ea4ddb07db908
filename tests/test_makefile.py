"""The Makefile, where nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("target", ["run", "flow"])
def test_a_download_without_git_is_told_before_the_installation(tmp_path: Path, target: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "requirements/main.txt", tmp_path / "requirements")
    make = ["make", "--silent", target, "PYTHON=false", f"VENV={tmp_path}/venv"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    done = subprocess.run(make, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "git init && git add --all && git commit" in done.stderr
    assert "setting up" not in done.stdout  # which it says once there is a repository
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    done = subprocess.run(make, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "git init" not in done.stderr
    assert "setting up" in done.stdout
