"""How `retrain` takes images in and gives them back; tests/e2e/test_retrain.py has whole runs."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipelines.flows.retrain import retrain

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("prefect_server")

STAGES = {
    "prepare": {"cmd": "touch prepare.out"},
    "validate": {"cmd": "touch validate.out", "deps": ["prepare.out"]},
    "compare": {"cmd": "echo 'error: far enough'; exit 1", "deps": ["validate.out"]},
}


def collect_in(root: Path, folder: str) -> None:
    path = root / "params.yaml"
    params = YAML().load(path)
    params["data"]["labelled"] = {"folder": folder}
    YAML().dump(params, path)


def write(folder: Path, *names: str, grey: int = 0) -> None:
    """Images of different greys, from `grey` on: the same one again would be a copy."""
    for number, name in enumerate(names, grey):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(folder / name)


def files(folder: Path) -> set[str]:
    """All but hidden ones: an intake leaves its lock in the collection."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_builtin_set_takes_nothing_in(committed):
    root = committed(STAGES)
    write(root / "data/incoming", "cat/1.png")
    state = retrain(incoming="data/incoming", project=str(root), return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert "data.labelled.folder is not set in params.yaml" in state.message
    assert "data.pretrain.folder" in state.message
    assert files(root / "data/incoming") == {"cat/1.png"}


@pytest.mark.parametrize(
    ("there", "told"), [(False, "data/incoming is not a folder"), (True, "data/incoming is empty")]
)
def test_nothing_has_arrived(committed, there, told):
    root = committed(STAGES)
    if there:
        (root / "data/incoming").mkdir(parents=True)
    state = retrain(incoming="data/incoming", project=str(root), return_state=True)
    assert state.is_failed()
    assert told in str(state.message)
    assert not list(root.rglob("prepare.out"))


def test_too_many_broken_images_move_nothing(committed, commit):
    root = committed(STAGES)
    write(root / "data/collection", "cat/1.png", "dog/1.png")
    collect_in(root, "data/collection")
    commit(root)
    write(root / "data/incoming", "cat/3.png", "cat/4.png", grey=100)
    (root / "data/incoming/cat/broken.png").write_bytes(b"")
    state = retrain(incoming="data/incoming", project=str(root), return_state=True)
    assert state.is_failed()
    assert "1 of the 3 images" in str(state.message)
    assert "cat/broken.png (empty file)" in str(state.message)
    assert files(root / "data/incoming") == {"cat/3.png", "cat/4.png", "cat/broken.png"}
    assert files(root / "data") == {"collection/cat/1.png", "collection/dog/1.png"} | {
        f"incoming/{name}" for name in files(root / "data/incoming")
    }


def test_a_collection_in_git_is_refused(committed, commit):
    root = committed(STAGES)
    write(root / "images", "cat/1.png", "dog/1.png")
    collect_in(root, "images")
    commit(root)
    write(root / "data/incoming", "cat/2.png")
    state = retrain(incoming="data/incoming", project=str(root), return_state=True)
    assert state.is_failed()
    assert "data.labelled.folder: images is in git" in str(state.message)
    assert files(root / "data/incoming") == {"cat/2.png"}


def test_images_stay_if_a_stage_behind_validate_fails(committed, commit):
    root = committed(STAGES)
    write(root / "data/collection", "cat/1.png", "dog/1.png")
    collect_in(root, "data/collection")
    commit(root)
    write(root / "data/incoming", "cat/3.png", "cat/4.png", grey=100)
    state = retrain(incoming="data/incoming", project=str(root), return_state=True)
    assert state.is_failed()
    assert "2 images taken into data.labelled.folder" in str(state.message)
    assert "compare: far enough" in str(state.message)
    assert files(root / "data/collection") == {"cat/1.png", "dog/1.png", "cat/3.png", "cat/4.png"}
    assert files(root / "data/incoming") == set()


def test_what_a_killed_run_took_in_goes_back_before_the_next_one_runs(committed, commit, processes, tmp_path):
    from prefect.settings import get_current_settings

    marker = f"marker-{uuid.uuid4().hex}"
    wait = f"""{sys.executable} -c 'import time; time.sleep(60)' {marker}"""
    root = committed(STAGES | {"prepare": {"cmd": f"[ -e {tmp_path}/go ] || {wait}; touch prepare.out"}})
    write(root / "data/collection", "cat/1.png", "dog/1.png")
    collect_in(root, "data/collection")
    commit(root)
    write(root / "data/incoming", "cat/3.png", "dog/2.png", grey=100)
    environment = os.environ | get_current_settings().to_environment_variables(exclude_unset=True)
    command = [sys.executable, "-m", "pipelines", "flow", "retrain", f"project={root}", "incoming=data/incoming"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        assert len(processes(marker, 1, 60)) == 1
        assert files(root / "data/incoming") == set()
        run.send_signal(signal.SIGKILL)
    assert processes(marker, 0) == []
    assert {"cat/3.png", "dog/2.png"} < files(root / "data/collection")

    (tmp_path / "go").touch()
    state = retrain(project=str(root), return_state=True)
    assert "compare: far enough" in str(state.message)
    assert files(root / "data/incoming") == {"cat/3.png", "dog/2.png"}
    assert files(root / "data/collection") == {"cat/1.png", "dog/1.png"}
