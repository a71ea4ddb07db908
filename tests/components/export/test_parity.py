import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from components.errors import UserError
from components.export.config import ExportConfig
from components.export.parity import check_parity, time_inference
from components.files import atomic_directory

CONFIG = ExportConfig()
# with and without a likelihood; that files of every kind pass: test_graph.py
pytestmark = pytest.mark.parametrize("exported", ["hybrid on grey patches", "contrastive"], indirect=True)


def perturb(path, changed_path, change) -> None:
    """Copy an ONNX file and change its largest weight matrix of floats."""
    model = onnx.load(path)
    matrices = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    largest = max(matrices, key=lambda t: np.prod(t.dims))
    value = change(numpy_helper.to_array(largest).copy())
    largest.CopyFrom(numpy_helper.from_array(value, largest.name))
    onnx.save(model, changed_path)


@pytest.mark.parametrize(
    "change", [lambda w: w + 0.01, lambda w: w * np.nan, lambda w: w * np.float32(1e30)], ids=["shifted", "NaN", "huge"]
)
def test_another_graph_is_refused(exported, tmp_path, change):
    perturb(exported.path, tmp_path / "changed.onnx", change)
    with pytest.raises(UserError, match=r"more than export\.tolerance \(0\.001\): parity/(embedding|ood_score)"):
        check_parity(exported.module, tmp_path / "changed.onnx", exported.images, CONFIG)


def test_a_refusal_leaves_no_file(exported, tmp_path):
    def export() -> None:
        with atomic_directory(tmp_path / "export") as folder:
            perturb(exported.path, folder / "model.onnx", lambda w: w + 0.01)
            check_parity(exported.module, folder / "model.onnx", exported.images, CONFIG)

    with pytest.raises(UserError, match="Nothing was exported"):
        export()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def scores(exported) -> torch.Tensor:
    with torch.no_grad():
        return exported.module(torch.from_numpy(exported.images))[2]


def test_other_decisions_are_refused_though_no_number_differs(exported, scores, monkeypatch):
    monkeypatch.setitem(exported.module._buffers, "threshold", scores.min() - 0.1)
    with pytest.raises(UserError, match="different_decisions"):
        check_parity(exported.module, exported.path, exported.images, CONFIG)


def test_a_single_other_decision_among_thousands_is_refused(exported, scores, monkeypatch):
    lowest, highest = exported.images[[scores.argmin()]], exported.images[[scores.argmax()]]
    monkeypatch.setitem(exported.module._buffers, "threshold", scores.min() - 0.1)
    images = np.concatenate([lowest, highest.repeat(2000, 0)])
    with pytest.raises(UserError, match="decisions differ"):
        check_parity(exported.module, exported.path, images, CONFIG)


@pytest.mark.parametrize("difference", [-1e-4, 1e-4])
def test_a_tie_within_the_tolerance_may_fall_either_way(exported, scores, monkeypatch, difference):
    monkeypatch.setitem(exported.module._buffers, "threshold", scores[0] + difference)
    changed = exported.images[:1]
    assert check_parity(exported.module, exported.path, changed, CONFIG)["parity/different_decisions"] == 0


def test_speed_is_measured_for_both_runtimes(exported, monkeypatch):
    monkeypatch.setattr("components.export.parity.TIMED_SECONDS", 0.01)
    metrics = time_inference(exported.module, exported.path, exported.images[:3])
    names = {f"{r}_{m}" for r in ("onnx", "torch") for m in ("latency_ms", "images_per_second")}
    assert set(metrics) == names
    assert min(metrics.values()) > 0
