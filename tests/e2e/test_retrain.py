"""`retrain` on digits in folders: new images, broken ones, a batch that is not valid, the gate, a remote, MLflow away.

One project goes through all of it, test by test, as it would night by night.
"""

import hashlib
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prefect.states import State

pytestmark = pytest.mark.e2e

A_CLASS = 30  # images of each class in the collection at first


@pytest.fixture(scope="module")
def digits() -> dict[str, list[np.ndarray]]:
    """Class → images uint8 (8, 8)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return {str(label): list(images[found.target == label]) for label in range(10)}


@pytest.fixture(scope="module")
def project(fresh, digits, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One variant on a folder of digits, with a DVC remote; committed."""
    root = tmp_path_factory.mktemp("retrain")
    project = fresh.copy(root / "project")
    for name, images in digits.items():
        write(project.root / "data/labelled", name, images[:A_CLASS])
    project.edit(
        {
            "data.labelled": {"folder": "data/labelled"},
            "data.max_quarantined": 0.1,
            "data.ood.photo-patches.source.limit": 50,
            "training.steps": 10,
            "variants.contrastive": None,
        }
    )
    (root / "remote").mkdir()
    project.dvc("remote", "add", "--default", "storage", str(root / "remote"))
    project.commit()
    return project


@pytest.fixture
def retrain(prefect_server: None, project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., State]:
    """Run the flow on the project."""
    from pipelines.flows.retrain import retrain

    for name in list(os.environ):
        if name.startswith(("DVC_", "GIT_", "PIPELINE_", "MLFLOW_TRACKING_")):
            monkeypatch.delenv(name)
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    return lambda **parameters: retrain(project=str(project.root), **parameters, return_state=True)


def write(folder: Path, name: str, images: list[np.ndarray]) -> None:
    """Under names of the images' own, so that none is taken."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for image in images:
        Image.fromarray(image).save(folder / name / f"{hashlib.md5(image.tobytes()).hexdigest()}.png")


def files(folder: Path) -> set[str]:
    """All but hidden ones: an intake leaves its lock in the collection."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def artifact(key: str) -> str:
    from prefect.artifacts import Artifact

    found = Artifact.get(key)
    assert found is not None
    return str(found.data)


def events(name: str, count: int) -> list[Any]:
    """The events of this name, as soon as there are so many: they are sent in the background."""
    from prefect.client.orchestration import get_client
    from prefect.events.filters import EventFilter, EventNameFilter

    found: list[Any] = []
    until = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while len(found) < count and time.monotonic() < until:
            time.sleep(0.2)
            found = client.read_events(filter=EventFilter(event=EventNameFilter(name=[name])), limit=50).events
    return found


def champion(project) -> str | None:
    from mlflow import MlflowClient

    client = MlflowClient(project.uri, project.uri)
    aliases = client.get_registered_model("gcrl").aliases
    return str(aliases["champion"]) if "champion" in aliases else None


def pushed(project) -> int:
    return len(files(project.root.parent / "remote"))


def test_new_images_make_a_champion(retrain, project, digits):
    data, before = project.root / "data", project.files("outputs", ".scratch")
    collected = files(data / "labelled")
    for name, images in digits.items():
        write(data / "incoming", name, images[A_CLASS : A_CLASS + 10])
    new = files(data / "incoming")
    (data / "incoming/3/broken.png").write_bytes(b"no image")
    shutil.copy(data / "labelled" / min(collected), data / "incoming" / Path(min(collected)).parent / "again.png")

    state = retrain(incoming="data/incoming")
    assert state.is_completed(), state.message
    assert "100 images taken into data.labelled.folder" in state.message
    assert "2 rejected" in state.message
    assert "champion of gcrl is now version 1 (hybrid): the gate passed and there was no champion" in state.message
    assert champion(project) == "1"
    assert files(data / "labelled") == collected | new
    assert files(data / "incoming") == set()
    assert files(data / "incoming-rejected") == {"reasons.csv", "0/again.png", "3/broken.png"}
    assert pushed(project) > 50
    assert project.files("outputs", ".scratch") == before, "the project's own results stay as they were"

    page = artifact("retrain")
    assert "| 3 | 10 |" in page
    assert "| 3/broken.png | not an image" in page
    assert "champion, challenger: version 1" in page
    assert "| linear probe |" in page
    assert "| sources | run |" in artifact("retrain-stages")
    (event,) = events("gcrl.model.promoted", 1)
    assert event.resource.id == "gcrl.model.gcrl"
    assert event.resource["gcrl.model.version"] == "1"
    assert event.payload["variant"] == "hybrid"


def test_with_nothing_new_all_is_cached(retrain, project):
    before = pushed(project)
    state = retrain()
    assert state.is_completed(), state.message
    assert {outcome.result for outcome in state.result().values()} == {"cached"}
    assert "champion of gcrl stays version 1" in state.message
    assert "- nothing" in artifact("retrain")
    assert pushed(project) == before
    assert len(events("gcrl.model.promoted", 1)) == 1


def test_a_batch_that_breaks_the_data_set_goes_back(retrain, project):
    """Images of one grey level each; `prepare` takes them, `validate` does not."""
    data = project.root / "data"
    collected = files(data / "labelled")
    for name in "0123":
        write(data / "incoming", name, [np.full((8, 8), 10 * int(name) + n, np.uint8) for n in range(10)])
    new = files(data / "incoming")
    state = retrain(incoming="data/incoming")
    assert state.is_failed()
    assert "validate: data/prepared: the data set violates" in state.message
    assert "not of a single grey level" in state.message
    assert f"40 images went back to {data}/incoming" in state.message
    assert files(data / "incoming") == new
    assert files(data / "labelled") == collected
    shutil.rmtree(data / "incoming")


def test_a_gate_that_is_not_reached_and_a_remote_that_is_not_there(retrain, project):
    project.edit({"gate.minimum": {"linear_accuracy": 1.0}})
    config = project.root / ".dvc/config"
    config.write_text(config.read_text().replace(str(project.root.parent / "remote"), "/dev/null/remote"))
    project.commit()
    state = retrain()
    assert state.is_failed()
    assert "the gate failed: linear_accuracy is 0." in state.message
    assert ", at least 1 is wanted; champion stays version 1" in state.message
    assert "`dvc push` failed" in state.message
    assert champion(project) == "1"
    page = artifact("retrain")
    assert "linear_accuracy" in page.partition("## What changed")[2].partition("## Champion")[0]
    assert "`dvc push` failed" in page


def test_without_mlflow_the_promotion_waits(retrain, project, monkeypatch):
    project.edit({"gate.minimum": {"linear_accuracy": 0.01}})
    project.commit()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        state = retrain(push=False)
    assert state.is_failed()
    assert "the promotion of hybrid is pending" in state.message
    assert "cannot be reached" in state.message
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    state = retrain(push=False)
    assert state.is_completed(), state.message
    assert "it is the champion already" in state.message
    assert "0 journals" in project.python("pipelines", "tracking", "status").stdout
