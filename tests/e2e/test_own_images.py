"""From colour images of a user's own to an exported model: a folder and Parquet files, and the CIFAR-10 preset."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ruamel.yaml import YAML

pytestmark = pytest.mark.e2e

ORDER = ("prepare", "validate", "baselines", "pretrain", "embed", "probe", "ood", "export")
SIZE = 12


def run_all(stage, project) -> None:
    """Every stage of one variant, up to the ONNX file, in the order of the DAG."""
    for name in ORDER:
        told = stage(project, name, *([] if name in ORDER[:3] else ["--variant", "hybrid"]))
        assert told.code == 0, told.err


def answers(project, split: str) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(project.root / "outputs/hybrid/export/model.onnx"))
    images = np.load(project.root / f"data/prepared/{split}.npy")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


def results(project, stage: str) -> dict[str, Any]:
    return json.loads((project.root / f"outputs/hybrid/{stage}/results.json").read_text())


def stripes(kind: int, rng: np.random.Generator) -> np.ndarray:
    """A noisy RGB image uint8 (S, S, 3): a class is an orientation and a colour."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    along = (rows, columns, rows + columns, rows - columns)[kind]
    wave = 0.5 + 0.5 * np.sin(along * 1.3 + rng.uniform(0, 6))
    colour = np.array([(1, 0.3, 0.3), (0.3, 1, 0.3), (0.3, 0.3, 1), (1, 1, 0.3)][kind])
    pixels = 200 * wave[..., None] * colour + rng.normal(20, 10, (SIZE, SIZE, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_parquet(path: Path, images: list[np.ndarray]) -> None:
    rows = []
    for number, pixels in enumerate(images):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        rows.append({"bytes": content.getvalue(), "path": f"{number}.png"})
    pq.write_table(pa.table({"image": rows}), path)


@pytest.fixture
def striped(fresh, tmp_path):
    """A project on a folder of four classes, one of them held out; an unlabelled folder to pretrain on; Parquet."""
    project = fresh.copy(tmp_path / "project")
    rng = np.random.default_rng(0)
    for kind, name in enumerate(("rows", "columns", "rising", "falling")):
        for number in range(50):
            write_png(project.root / f"images/labelled/{name}/{number}.png", stripes(kind, rng))
    for number in range(120):
        write_png(project.root / f"images/unlabelled/{number}.png", stripes(number % 3, rng))
    noise = [rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(40)]
    write_parquet(project.root / "images/noise.parquet", noise)
    project.edit(
        {
            "data.image_size": SIZE,
            "data.channels": 3,
            "data.palette_colours": 64,
            "data.labelled": {"folder": "images/labelled"},
            "data.pretrain": {"folder": "images/unlabelled"},
            "data.ood": {
                "falling": {"distance": "near", "held_out_classes": ["falling"]},
                "noise": {"distance": "far", "source": {"parquet": "images/noise.parquet"}},
            },
            "model.patch_size": 4,
            "training.batch_size": 32,
            "training.steps": 20,
        }
    )
    return project


def test_a_labelled_folder_and_another_to_pretrain_on(stage, striped):
    run_all(stage, striped)
    meta = json.loads((striped.root / "data/prepared/dataset.json").read_text())
    counts = {name: split["count"] for name, split in meta["splits"].items()}
    assert counts == {"train": 105, "val": 15, "test": 30, "pretrain": 120, "ood-falling": 50, "ood-noise": 40}
    assert meta["classes"] == ["columns", "rising", "rows"]
    assert np.load(striped.root / "data/prepared/palette.npy").shape == (64, 3)
    pretrained_on = results(striped, "pretrain")["constants"]["data_fingerprint"]
    assert pretrained_on == meta["splits"]["pretrain"]["fingerprint"]
    assert not (striped.root / "outputs/hybrid/embed/pretrain.features.npy").exists()
    assert results(striped, "probe")["metrics"]["linear_accuracy"] > 0.5  # chance is a third
    assert results(striped, "ood")["metrics"]["nll/noise/auroc"] > 0.8  # few steps teach it what images are likely
    test = answers(striped, "test")
    assert test["probabilities"].shape == (30, 3)
    assert np.load(striped.root / "outputs/hybrid/embed/test.bits_per_dim.npy").shape == (30,)


IMAGE_SETS = os.environ.get("GCRL_IMAGE_SETS")


@pytest.mark.skipif(not IMAGE_SETS, reason="GCRL_IMAGE_SETS names no folder with cifar10-train.parquet and others")
def test_the_cifar10_preset_on_a_few_hundred_images(stage, fresh, tmp_path):
    """The preset's own file, with the images, the size of the model and the steps cut down to what a CPU does."""
    project = fresh.copy(tmp_path / "project")
    sets = Path(str(IMAGE_SETS)).resolve()

    def source(name: str, limit: int) -> dict[str, Any]:
        return {"parquet": str(sets / f"{name}.parquet"), "limit": limit}

    yaml = YAML()
    preset = yaml.load(project.root / "presets/cifar10-gpu.yaml")
    preset["data"] |= {
        "labelled": source("cifar10-train", 400),
        "test": source("cifar10-test", 150),
        "palette_colours": 64,
        "ood": {
            "tiny-imagenet": {"distance": "near", "source": source("tinyimagenet32-val", 100)},
            "fashion-mnist": {"distance": "far", "source": source("fashion-mnist-test", 100)},
            "mnist": {"distance": "far", "source": source("mnist-test", 100)},
            "shuffled": {"distance": "far", "shuffled_test": True},
        },
    }
    preset["model"] |= {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "local_width": 8}
    preset["training"] |= {"steps": 20, "batch_size": 32, "warmup_steps": 5, "evaluate_every": 10, "log_every": 5}
    preset["probe"] |= {"shots": [1, 10], "draws": 1, "l2": [0.01]}
    preset["ood"] |= {"k": 5, "bootstrap": 50}
    yaml.dump(preset, project.root / "params.yaml")

    run_all(stage, project)
    meta = json.loads((project.root / "data/prepared/dataset.json").read_text())
    assert meta["classes"][:3] == ["airplane", "automobile", "bird"]
    assert meta["splits"]["test"]["count"] == 150
    assert np.load(project.root / "data/prepared/train.npy", mmap_mode="r").shape[1:] == (32, 32, 3)
    assert results(project, "export")["metrics"]["parity/different_decisions"] == 0
    far = answers(project, "ood-mnist")
    assert far["embedding"].shape == (100, 32)
    assert far["ood_score"].mean() > answers(project, "test")["ood_score"].mean()
