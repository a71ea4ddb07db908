import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from mlflow import MlflowClient
from PIL import Image

from components.export.reference import Reference
from pipelines.__main__ import main
from pipelines.tracking import Journal, deliver

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, onnx_file: Path) -> Path:
    """A project with two versions of `gcrl`, the first of them champion, an export of its own, and three images."""
    folder = tmp_path_factory.mktemp("predict") / "project"
    (folder / "mlruns").mkdir(parents=True)
    shutil.copyfile(empty_store, folder / "mlruns" / "mlflow.db")
    shutil.copyfile(ROOT / "presets" / "digits-cpu.yaml", folder / "params.yaml")
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 1), dtype=np.uint8)
    (folder / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / "images" / f"{number}.png")
    export = folder / "outputs" / "hybrid" / "export"
    export.mkdir(parents=True)
    shutil.copyfile(onnx_file, export / "model.onnx")
    Reference.of(onnx_file, images, ("zero", "one"), {}, 0.06, 2.0).save(export / "reference.npz")
    for number in (1, 2):
        graph = onnx.load(onnx_file)
        graph.model_version = number  # another file, which gives the same answers
        onnx.save(graph, folder / "model.onnx")
        with Journal.start("report", root=folder / ".tracking") as journal:
            journal.model(folder / "model.onnx", "model", "gcrl", extra_files=[export / "reference.npz"])
    uri = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    assert deliver(uri, root=folder / ".tracking").pending == []
    MlflowClient(uri, uri).set_registered_model_alias("gcrl", "champion", "1")
    return folder


@pytest.fixture
def predict(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`predict("images", "out.csv", …)`: the command in the project's folder, without the start of a process."""
    for name in ("MLFLOW_TRACKING_URI", "PIPELINE_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(project)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        return subprocess.CompletedProcess(arguments, main(["predict", *arguments]), *capfd.readouterr())

    return run


def test_the_command_as_it_is_typed(project, tmp_path):
    """In a process of its own, in which no library says anything beside the answer."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "PIPELINE_TRACKING")}
    out = str(tmp_path / "out.csv")
    for model, code, told in (("champion", 0, f"gcrl version 1: 3 files → {out}\n"), ("7", 1, "")):
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", "predict", "images", out, "--model", model],
            **{"cwd": project, "capture_output": True, "text": True, "timeout": 120},
            env=kept | {"PYTHONPATH": str(ROOT)},
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, told, code), done.stderr


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ([], "gcrl version 1"),
        (["--model", "2"], "gcrl version 2"),
        (["--model", "outputs/hybrid/export"], "outputs/hybrid/export/model.onnx"),
    ],
)
def test_the_same_table_from_champion_version_and_file(predict, project, tmp_path, option, shown):
    done = predict("images", str(tmp_path / "out.csv"), *option)
    assert (done.returncode, done.stdout) == (0, f"{shown}: 3 files → {tmp_path / 'out.csv'}\n"), done.stderr
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["0.png", "1.png", "2.png"]
    for row in rows:
        assert float(row["probability: zero"]) + float(row["probability: one"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out.csv"], "nowhere is not a folder"),
        (["empty", "out.csv"], "empty is empty. Give a folder of images"),
        (["images", "out.xlsx"], "must end with .csv or .parquet"),
        (["images", "images/out.csv"], "lies inside images"),
        (["images", "out.csv", "--model", "outputs/hybrid"], "holds no model.onnx and no reference.npz"),
        (["images", "out.csv", "--model", "7"], "no version of gcrl"),
    ],
)
def test_a_mistake_is_one_line(predict, project, arguments, message):
    (project / "empty").mkdir(exist_ok=True)
    done = predict(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (project / "out.csv").exists()
