import csv
import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image
from prefect.client.orchestration import get_client

from components.export.reference import Reference
from pipelines.flows.monitor import EVENT, monitor
from pipelines.tracking import Journal, deliver

ROOT = Path(__file__).parents[3]
USUAL, DARK, BRIGHT = (0, 105), (0, 5), (100, 256)  # grey levels; the model flags some 6 % of the usual images
pytestmark = pytest.mark.usefixtures("prefect_server")


def random_images(count: int, levels: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(*levels, (count, 2, 2, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, onnx_file: Path) -> MlflowClient:
    """Of a project's MLflow store, with a champion `gcrl`, a model `bare` without a reference and a model `chalk`."""
    project = tmp_path_factory.mktemp("monitored") / "project"
    (project / "mlruns").mkdir(parents=True)
    shutil.copyfile(empty_store, project / "mlruns" / "mlflow.db")
    shutil.copyfile(ROOT / "presets" / "digits-cpu.yaml", project / "params.yaml")
    reference = project.parent / "reference.npz"
    usual = random_images(400, USUAL)
    Reference.of(onnx_file, usual, ("zero", "one"), {}, 0.06, 2.0).save(reference)
    with Journal.start("report", root=project / ".tracking") as journal:
        journal.model(onnx_file, "model", "gcrl", extra_files=[reference])
        journal.model(onnx_file, "bare", "bare")
    uri = f"sqlite:///{project / 'mlruns' / 'mlflow.db'}"
    assert deliver(uri, root=project / ".tracking").pending == []
    client = MlflowClient(uri, uri)
    chalk = project.parent / "chalk"
    chalk.mkdir()
    (chalk / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: chalk\n")
    client.create_registered_model("chalk")
    client.create_model_version("chalk", chalk.as_uri())
    client.create_registered_model("lost")
    client.create_model_version("lost", (project.parent / "nowhere").as_uri())
    for name in ("gcrl", "bare", "chalk", "lost"):
        client.set_registered_model_alias(name, "champion", "1")
    return client


@pytest.fixture
def project(client: MlflowClient) -> Path:
    return Path(client.tracking_uri.removeprefix("sqlite:///")).parents[1]


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """`put(images, prefix)` writes them to the incoming folder, which it returns."""
    folder = tmp_path / "incoming"
    folder.mkdir()

    def put(images: np.ndarray, prefix: str = "") -> Path:
        for number, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(folder / f"{prefix}{number:04}.png")
        return folder

    return put


@pytest.fixture
def run(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`run(key=value …)`: the state in which the flow ends, over tmp_path's `incoming` and `out`."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    usual = {"incoming": str(tmp_path / "incoming"), "output": str(tmp_path / "out"), "project": str(project)}
    return lambda **parameters: monitor(**usual | parameters, return_state=True)


def batches(tmp_path: Path) -> list[Path]:
    """The folders of results, oldest first."""
    return sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())


def events_of(state: Any) -> list[Any]:
    """The drift events that the server has of a flow run, as soon as there is one; none after ten seconds."""
    from prefect.events.filters import EventFilter, EventNameFilter

    for _ in range(100):
        with get_client(sync_client=True) as client:
            wanted = EventFilter(event=EventNameFilter(name=[EVENT]))
            body = {"filter": wanted.model_dump(mode="json")}
            found = client._client.post("/events/filter", json=body).json()["events"]
        run = f"prefect.flow-run.{state.state_details.flow_run_id}"
        if mine := [event for event in found if run in {r["prefect.resource.id"] for r in event["related"]}]:
            return mine
        time.sleep(0.1)
    return []


def test_usual_images_are_scored_once(run, put, tmp_path, onnx_file, client):
    images = random_images(150, USUAL, seed=1)
    put(images)
    state = run(batch_size=64)
    assert state.is_completed(), state.message
    assert state.message.startswith("gcrl version 1: 150 images, ")
    assert state.message.endswith("% flagged as OOD (calibrated: 6.0%); no drift")

    (folder,) = batches(tmp_path)
    written = {"predictions.parquet", "unusable.csv", "drift.json", "report.md", "scores.png", "embeddings.png"}
    assert {path.name for path in folder.iterdir()} == written
    table = pq.read_table(folder / "predictions.parquet")
    assert {k.decode(): v.decode() for k, v in table.schema.metadata.items()}.items() >= {
        ("model", "gcrl"),
        ("model_version", "1"),
        ("incoming", str(tmp_path / "incoming")),
    }
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    probabilities, scores, flags = session.run(["probabilities", "ood_score", "is_ood"], {"image": images})
    rows = table.to_pydict()
    assert rows["path"] == [f"{i:04}.png" for i in range(150)]
    assert rows["predicted_class"] == [("zero", "one")[k] for k in probabilities.argmax(1)]
    assert rows["ood_score"] == pytest.approx(scores.tolist())
    assert rows["is_ood"] == flags.tolist()

    again = run()
    assert (again.is_completed(), again.message) == (True, f"nothing new among 150 files in {tmp_path / 'incoming'}")
    put(random_images(40, USUAL, seed=2), prefix="later-")
    assert run().message.startswith("gcrl version 1: 40 images, ")
    assert run(everything=True).message.startswith("gcrl version 1: 190 images, ")
    assert [pq.read_metadata(f / "predictions.parquet").num_rows for f in batches(tmp_path)] == [150, 40, 190]
    assert len(list((tmp_path / "incoming").iterdir())) == 190

    experiment = client.get_experiment_by_name("gcrl-monitoring")
    tracked = client.search_runs([experiment.experiment_id], order_by=["start_time DESC"])[:3]
    assert [r.data.metrics["images"] for r in tracked] == [190, 40, 150]
    assert [r.data.tags["model_version"] for r in tracked] == ["1"] * 3
    summary = json.loads((folder / "drift.json").read_text())
    numbers = tracked[-1].data.metrics
    assert numbers["flagged_share"] == pytest.approx(flags.mean())
    assert numbers["ood_score/effect"] == summary["tests"]["ood_score"]["effect"]
    assert numbers["embedding/p_value"] == summary["tests"]["embedding"]["p_value"]
    assert {file.path for file in client.list_artifacts(tracked[-1].info.run_id)} == written - {
        "predictions.parquet",
        "unusable.csv",
    }


def test_drift_fails_the_flow_and_is_an_event(run, put, tmp_path):
    from prefect.artifacts import Artifact

    put(random_images(60, BRIGHT))
    state = run()
    assert state.is_failed()
    assert "\n" not in state.message
    for told in ("60 images, 100.0%", "drift of share flagged as OOD: 0.940 above the level, limit 0.05 (p < 1e-6)"):
        assert told in state.message
    for title in ("OOD scores", "embeddings"):
        assert f"drift of {title}: " in state.message
    assert "not so: brightness is on average what it is in validation" in state.message
    (event,) = events_of(state)
    assert event["resource"] == {
        "prefect.resource.id": "gcrl.model.gcrl",
        "prefect.resource.name": "gcrl",
        "gcrl.model.version": "1",
    }
    assert event["payload"]["message"] == state.message
    (folder,) = batches(tmp_path)
    assert event["payload"]["report"] == str(folder)
    shown = Artifact.get("monitor")
    assert shown is not None
    assert "| share flagged as OOD | 0.940 above the level | 0.05 | < 1e-6 | 0.0033 | **drift** |" in shown.data
    assert shown.data.count("](data:image/png;base64,") == 2
    assert "](scores.png)" in (folder / "report.md").read_text()
    assert run().message.startswith("nothing new")  # told once


def test_copies_and_blanks_fail_the_flow_without_being_drift(run, put, tmp_path):
    put(random_images(100, USUAL, seed=3))
    put(np.repeat(random_images(1, USUAL, seed=4), 30, axis=0), prefix="copy-")
    limits = {"flagged_excess": 0.5, "score_distance": 0.9, "embedding_distance": 1.4}
    state = run(thresholds=limits)
    assert state.is_failed()
    assert state.message.endswith("not so: pictures occur once (such as copy-0000.png)")
    grey = np.repeat(np.arange(20, 50, dtype=np.uint8), 4).reshape(-1, 2, 2, 1)
    put(np.concatenate([grey, random_images(100, USUAL, seed=5)]), prefix="blank-")
    state = run(thresholds=limits)
    assert "not so: images are not of a single colour (such as blank-0000.png)" in state.message
    assert "drift of" not in state.message
    assert not (tmp_path / "out" / "unusable.csv").exists()


def test_a_few_usual_images_are_too_few_to_tell(run, put, tmp_path):
    put(random_images(3, DARK))
    state = run()
    assert "drift of" not in state.message
    (folder,) = batches(tmp_path)
    tests = json.loads((folder / "drift.json").read_text())["tests"]
    assert tests["flagged"]["verdict"] == "no drift"
    assert {tests[name]["verdict"] for name in ("ood_score", "embedding", "classes")} == {"too few images to tell"}
    assert "too few images to tell" in (folder / "report.md").read_text()


def test_unusable_files_are_listed_and_too_many_are_refused(run, put, tmp_path):
    folder = put(random_images(40, USUAL))
    Image.new("L", (8, 8)).save(folder / "large.png")
    (folder / "notes.png").write_text("no image")
    (folder / "notes.txt").write_text("no image, and of no name of one: left alone")
    state = run(max_unusable=0.04)
    assert state.is_failed()
    for told in (
        "incoming: 2 of 42 new files in ",
        "can't be used (4.8%, max_unusable allows 4.0%)",
        "size is 8×8, expected 2×2",
        "gcrl version 1 takes 2×2 grey images.",
        f"all are listed in {tmp_path / 'out' / 'unusable.csv'}",
    ):
        assert told in state.message
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "unusable.csv"}  # nothing half done

    state = run()
    assert state.is_completed(), state.message  # 4.8 % is within the default
    (written,) = batches(tmp_path)
    with (written / "unusable.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["large.png", "notes.png"]
    assert not (tmp_path / "out" / "unusable.csv").exists()
    assert run().message.startswith("nothing new")


def test_a_folder_of_broken_images(run, put, tmp_path):
    (put(random_images(0, USUAL)) / "broken.png").write_bytes(b"\x89PNG broken")
    state = run(max_unusable=1.0)
    assert state.is_failed()
    assert "1 of 1 new files" in state.message
    assert batches(tmp_path) == []


def test_what_a_killed_run_left_is_cleared_away(run, put, tmp_path):
    left = tmp_path / "out" / ".20200101T000000.000000.k1ll3d"
    left.mkdir(parents=True)
    (left / "predictions.parquet").write_bytes(b"half a file")
    put(random_images(2, USUAL))
    run()
    assert not left.exists()
    assert len(batches(tmp_path)) == 1


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"incoming": "nowhere"}, "nowhere is not a folder. Give the path of the folder that images arrive in."),
        ({"incoming": "empty"}, "holds no image. Put images into it."),
        ({"output": "in/results", "incoming": "in"}, "lies inside the incoming folder"),
        ({"model": "gcrk"}, "model: no registered model 'gcrk' in "),
        ({"model": "gcrk"}, "did you mean 'gcrl'. Registered are: "),
        ({"alias": "best"}, "alias: no version of gcrl in "),
        ({"alias": "best"}, "Its aliases: champion. A champion comes with `dvc repro`"),
        ({"model": "bare"}, "bare version 1 has no reference.npz to compare images with."),
        ({"model": "chalk"}, "chalk version 1 is no ONNX model (python_function)."),
        ({"model": "lost"}, "lost version 1: its files can't be fetched from file:///"),
        ({"thresholds": {"alpa": 0.05}}, "thresholds.alpa"),
        ({"thresholds": {"alpha": 0.5}}, "alpha must lie between 0.001 and 0.2, not 0.5"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_unusable": 1.1}, "max_unusable"),
        ({"project": "/nowhere"}, "/nowhere/params.yaml: not found."),
    ],
)
def test_mistakes_fail_the_flow_with_one_message(run, put, project, tmp_path, parameters, told):
    put(random_images(2, USUAL))
    (project / "empty").mkdir(exist_ok=True)
    state = run(**parameters)
    assert state.is_failed()
    assert told in state.message
    assert not (tmp_path / "out").exists() or batches(tmp_path) == []


def test_an_mlflow_server_that_cannot_be_reached(run, put, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    put(random_images(2, USUAL))
    run()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:secret@{address}")
    assert run().message.startswith("nothing new")  # for which no server is asked
    state = run(everything=True)
    assert (state.is_failed(), state.message) == (True, f"MLflow: http://{address} cannot be reached.")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert "there is no store at sqlite:///" in run(everything=True).message
    assert not (tmp_path / "other.db").exists()
