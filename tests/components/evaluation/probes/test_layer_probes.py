import csv

import numpy as np
import pytest
from PIL import Image

from components.evaluation.config import ProbeConfig
from components.evaluation.probes.layer_probes import LayerAccuracy, probe_layers, read_csv, write_csv
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.run import run_probes
from components.plotting.probes import layer_curve

pytestmark = pytest.mark.trains

CONFIG = ProbeConfig(l2=(0.01, 0.1), k=(1, 5), shots=(), draws=1)
COUNTS = {"train": 300, "val": 90, "test": 90}
STRENGTHS = {"encoder": (0.0, 1.5, 6.0), "decoder": (3.0, 0.0)}  # how far apart a layer keeps three classes
LABELS = {split: np.arange(count) % 3 for split, count in COUNTS.items()}


@pytest.fixture
def folder(tmp_path):
    for split, labels in LABELS.items():
        rng = np.random.default_rng(len(labels))
        for part, strengths in STRENGTHS.items():
            layers = [rng.normal(size=(len(labels), 6)) + strength * np.eye(3, 6)[labels] for strength in strengths]
            np.save(tmp_path / f"{split}.{part}.npy", np.array(layers, np.float16))
        np.save(tmp_path / f"{split}.rows.npy", np.arange(len(labels)))
    return tmp_path


def test_the_layers_that_know_the_classes_are_found(folder):
    found = probe_layers(folder, LABELS, CONFIG)
    assert [(layer.layer, layer.part) for layer in found] == [
        *((number, "encoder") for number in (1, 2, 3)),
        *((number, "decoder") for number in (4, 5)),
    ]
    for measure in ("linear_accuracy", "knn_accuracy"):
        nothing, little, all_of_it, most, nothing_again = (getattr(layer, measure) for layer in found)
        assert max(nothing, nothing_again) < 0.5 < little < most < all_of_it


def test_a_layers_numbers_are_those_of_the_probes(folder):
    layer = probe_layers(folder, LABELS, CONFIG)[1]
    splits = (Labelled(np.load(folder / f"{s}.encoder.npy")[1].astype(np.float32), y) for s, y in LABELS.items())
    expected = run_probes(*splits, CONFIG, seed=0).metrics
    assert layer == LayerAccuracy(2, "encoder", expected["linear_accuracy"], expected["knn_accuracy"])


def test_labels_are_those_of_the_images_that_were_kept(tmp_path):
    """Features of some images tell their labels exactly."""
    for split, labels in LABELS.items():
        rows = np.random.default_rng(0).permutation(len(labels))[:70]
        np.save(tmp_path / f"{split}.rows.npy", rows)
        np.save(tmp_path / f"{split}.encoder.npy", 9 * np.eye(3, dtype=np.float16)[labels[rows]][None])
    assert probe_layers(tmp_path, LABELS, CONFIG) == [LayerAccuracy(1, "encoder", 1.0, 1.0)]


def test_no_layers_no_numbers(tmp_path):
    assert probe_layers(tmp_path, LABELS, CONFIG) == []


def test_table_and_figure(folder, tmp_path):
    found = probe_layers(folder, LABELS, CONFIG)
    write_csv(found, tmp_path / "layers.csv")
    again = read_csv(tmp_path / "layers.csv")
    assert [layer[:2] for layer in again] == [layer[:2] for layer in found]
    assert [layer[2:] for layer in again] == [pytest.approx(layer[2:], rel=1e-5) for layer in found]
    with (tmp_path / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["layer", "part", "linear_accuracy", "knn_accuracy"]
    for row, layer in zip(rows, found, strict=True):
        assert (int(row["layer"]), row["part"]) == (layer.layer, layer.part)
        assert float(row["linear_accuracy"]) == pytest.approx(layer.linear_accuracy, rel=1e-5)
        assert float(row["knn_accuracy"]) == pytest.approx(layer.knn_accuracy, rel=1e-5)
    for layers in (found, found[:1]):
        layer_curve(layers, tmp_path / "layers.png")
        image = Image.open(tmp_path / "layers.png")
        assert min(image.size) >= 300
        assert len(image.convert("RGB").getcolors(image.width * image.height)) > 10
