"""The Makefile, in folders where nothing is installed yet."""

import os
import shutil
import subprocess
import sys
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


def test_the_project_is_installed_in_place_without_fetching_anything(tmp_path: Path) -> None:
    project, venv = tmp_path / "project", tmp_path / "venv"
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE", "requirements/main.txt"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    shutil.copy(ROOT / "requirements/main.txt", venv / "main.stamp")
    make = ["make", "--silent", f"VENV={venv}", f"UV={Path(sys.executable).parent / 'uv'}", f"{venv}/bin/gcrl"]
    for _ in range(2):
        subprocess.run(make, cwd=project, env=os.environ | {"UV_OFFLINE": "1"}, check=True)
    code = "import components, pipelines; print(*components.__path__, *pipelines.__path__)"
    python = [venv / "bin" / "python", "-c", code]
    found = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert found.split() == [str(project / "components"), str(project / "pipelines")]
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")))
    done = subprocess.run([venv / "bin" / "gcrl", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: gcrl [OPTIONS] COMMAND")
