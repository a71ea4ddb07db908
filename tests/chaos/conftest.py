"""A small finished project, and the signs that a fault has left something behind."""

import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import PARAMS, Project, new_project

TIMES = re.compile(r"second|latency|_ms|megabytes|memory|throughput")  # no two runs have the same
SMALL: dict[str, Any] = PARAMS | {
    "variants": {"hybrid": {"w_gen": 1.0, "w_con": 1.0}},
    "embed": {"corruptions": []},
    "training": PARAMS["training"] | {"checkpoint_seconds": 0},
}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything has run once; not to be changed."""
    project = new_project(tmp_path_factory.mktemp("small") / "project", SMALL)
    (project.root / "requirements").mkdir()
    (project.root / "requirements" / "main.txt").touch()
    project.python("pipelines", "repro")
    return project


def processes_in(project: Project) -> list[psutil.Process]:
    """Every living process that works in the project's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def numbers(project: Project) -> dict[str, Any]:
    """Every number that no clock decides, and images, features and weights."""
    found = {
        f"{path.relative_to(project.root)}:{name}": value
        for path in (project.root / "outputs").rglob("results.json")
        for name, value in json.loads(path.read_text())["metrics"].items()
        if not TIMES.search(name)
    }
    arrays = {n: digest for n, digest in project.files().items() if n.endswith((".npy", ".safetensors"))}
    return found | arrays


def leftovers(project: Project) -> list[str]:
    """Temporary files and folders, and resume files of a training that has ended."""
    folders = ("outputs", "data", ".scratch", ".tracking/journals")
    hidden = [p for folder in folders for p in (project.root / folder).rglob(".*") if "gx" not in p.parts]
    found: list[Path] = [*hidden, *(project.root / ".scratch").glob("pretrain-*")]
    return sorted(str(p.relative_to(project.root)) for p in found)
