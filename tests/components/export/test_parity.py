import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from components.errors import UserError
from components.export.card import model_card
from components.export.config import ExportConfig
from components.export.parity import check_parity, time_inference
from components.files import atomic_directory

CONFIG = ExportConfig()


def perturb(path, changed_path, change) -> None:
    """Copy an ONNX file and change its largest weight matrix of floats."""
    model = onnx.load(path)
    matrices = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    largest = max(matrices, key=lambda t: np.prod(t.dims))
    value = change(numpy_helper.to_array(largest).copy())
    largest.CopyFrom(numpy_helper.from_array(value, largest.name))
    onnx.save(model, changed_path)


def test_the_exported_file_passes(exported):
    metrics = check_parity(exported.module, exported.path, exported.images, CONFIG)
    assert set(metrics) == {f"parity/{n}" for n in ("embedding", "probabilities", "ood_score", "different_decisions")}
    assert metrics["parity/different_decisions"] == 0
    assert metrics["parity/embedding"] < 1e-4
    assert max(metrics.values()) < CONFIG.tolerance


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


@pytest.mark.parametrize("bits", [{}, {"bits_per_dim/test": 1.987}], ids=["no likelihood", "likelihood"])
def test_the_card_tells_what_was_measured(bits):
    probe = {"linear_accuracy": 0.9861, "linear_accuracy_se": 0.006, "knn_accuracy": 0.97}
    probe |= {"linear_ece": 0.04, "linear_ece_calibrated": 0.0123}
    names = ("auroc", "auroc_low", "auroc_high", "fpr95", "flagged")
    ood = {
        f"fused/{s}/{n}": v
        for s in ("photos", "held-out")
        for n, v in zip(names, (0.9, 0.8, 0.95, 0.3, 0.5), strict=True)
    }
    ood |= {"fused/test/flagged": 0.061, "fused/near/auroc": 0.9, "fused/mean/auroc": 0.9}
    export = dict.fromkeys(("parity/embedding", "parity/probabilities", "parity/ood_score"), 1e-6)
    export |= {f"{r}_{m}": 12.0 for r in ("onnx", "torch") for m in ("latency_ms", "images_per_second")}
    facts = {"feature_size": 16, "false_alarm_rate": 0.05, "parameters": 1234567, "steps": 600, "batch_size": 128}
    facts |= {"seed": 0, "data_fingerprint": "abcdef" * 10, "objective": "1 · autoregressive + 1 · nt_xent"}
    stages = {"probe": probe, "ood": ood, "embed": bits, "export": export}
    card = model_card("hybrid", ["zero", "one"], (8, 8, 1), stages, 1.5, facts)
    for told in ("98.6%", "0.012", "6.1%", "zero, one", "`(N, 8, 8, 1)`", "1,234,567", "above 1.5", "5% of validation"):
        assert told in card
    assert ("1.987 bits/dim" in card) == bool(bits)
    assert "| held-out | 0.900 (0.800 to 0.950) | 0.300 | 50.0% |" in card
    assert "| photos |" in card
    assert "| near |" not in card
