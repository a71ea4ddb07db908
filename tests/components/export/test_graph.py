import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from components.errors import UserError
from components.export.config import NEWEST_OPSET, OLDEST_OPSET, ExportConfig
from components.export.graph import OUTPUTS, export_onnx
from components.export.parity import check_parity, open_session
from tests.components.export.conftest import SHALLOW

ROOT = Path(__file__).parents[3]
CONFIG = ExportConfig()


def run(path, images: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(OUTPUTS, open_session(path).run(list(OUTPUTS), {"image": images}), strict=True))


def test_the_module_equals_the_numpy_probe_and_score(make_shipped, tmp_path):
    for architecture in (
        {"colours": 5},
        {"colours": 40, "channels": 3},
        {"channels": 3, "likelihood": "logistic_mixture"},
        {"colours": 5, "w_gen": 0},
    ):
        made = make_shipped(tmp_path / "model.onnx", patch_size=2, **architecture)
        with torch.no_grad():
            embedding, probabilities, score, is_ood = made.module(torch.from_numpy(made.images))
        assert embedding.numpy() == pytest.approx(made.batch.features, abs=1e-5)
        assert probabilities.numpy() == pytest.approx(made.probe.probabilities(made.batch.features), abs=1e-5)
        expected = made.fused.score(made.batch)
        assert score.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-5)
        clear = np.abs(expected / float(made.module.threshold) - 1) > 1e-3
        assert np.array_equal(is_ood.numpy()[clear], expected[clear] > float(made.module.threshold))
        assert clear.mean() > 0.9


def test_the_files_signature(exported):
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    channels = exported.images.shape[3]
    named = {value.name: value.type.tensor_type for value in (*model.graph.input, *model.graph.output)}
    shapes = {n: [d.dim_param or d.dim_value for d in t.shape.dim] for n, t in named.items()}
    kinds = {name: tensor.elem_type for name, tensor in named.items()}
    real, flag, byte = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL, onnx.TensorProto.UINT8
    assert kinds == {"image": byte, "embedding": real, "probabilities": real, "ood_score": real, "is_ood": flag}
    assert [*named] == ["image", *OUTPUTS]
    n = shapes["image"][0]
    assert isinstance(n, str)  # a name: any number of images
    assert shapes["image"][1:] == [4, 4, channels]
    assert shapes["embedding"] == [n, 16]
    assert shapes["probabilities"] == [n, 3]
    assert shapes["ood_score"] == shapes["is_ood"] == [n]
    assert model.opset_import[0].version == 20
    assert [file.name for file in exported.path.parent.iterdir()] == ["model.onnx"]  # no weights beside it


@pytest.mark.parametrize("size", [0, 1, 2, 7, 64])
def test_any_number_of_images(exported, size):
    with torch.no_grad():
        expected = exported.module(torch.from_numpy(exported.images[:size]))
    found = run(exported.path, exported.images[:size])
    for name, value in zip(OUTPUTS, expected, strict=True):
        assert found[name].shape == value.shape
        assert found[name].dtype == value.numpy().dtype
        assert found[name].astype(float) == pytest.approx(value.numpy().astype(float), abs=1e-3, rel=1e-4), name


def test_it_passes_the_check_of_the_export(exported):
    metrics = check_parity(exported.module, exported.path, exported.images, CONFIG)
    assert set(metrics) == {f"parity/{n}" for n in ("embedding", "probabilities", "ood_score", "different_decisions")}
    assert metrics["parity/different_decisions"] == 0
    assert metrics["parity/embedding"] < 1e-4
    assert max(metrics.values()) < CONFIG.tolerance


def test_the_file_holds_nothing_of_the_machine_that_wrote_it(exported):
    written = exported.path.read_bytes()
    for place in (ROOT, Path(sys.prefix), Path(torch.__file__).parent, Path.home()):
        assert os.fsencode(place.resolve()) not in written
    for trace in (b".py", b"stack_trace", b"torch.fx", b"+cu", b"+cpu"):
        assert trace not in written


EXPORT = """
import sys
from pathlib import Path
import torch
from components.export.graph import export_onnx

module = torch.load(sys.argv[1], weights_only=False)
for path in sys.argv[2:]:
    export_onnx(module, 4, module.model.tokenizer.palette.shape[1], Path(path), opset=20)
"""


@pytest.mark.parametrize("exported", ["hybrid on grey patches"], indirect=True)
def test_the_same_weights_give_the_same_bytes_anywhere(exported, tmp_path):
    """By another process, from another folder, with another seed of hashes; and by a second call there."""
    torch.save(exported.module, tmp_path / "module.pt")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "components", elsewhere / "components", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(elsewhere), "PYTHONHASHSEED": "1", "PYTHONSAFEPATH": "1"}
    paths = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    command = [sys.executable, "-c", EXPORT, tmp_path / "module.pt", *paths]
    subprocess.run(command, cwd=elsewhere, env=environment, check=True)
    assert len({path.read_bytes() for path in (exported.path, *paths)}) == 1


@pytest.mark.parametrize("opset", [OLDEST_OPSET, NEWEST_OPSET])
def test_the_file_has_the_opset_that_was_asked_for(make_shipped, tmp_path, opset):
    made = make_shipped(tmp_path / "model.onnx", patch_size=2, colours=5, **SHALLOW)
    export_onnx(made.module, 4, 1, made.path, opset)
    assert [(o.domain, o.version) for o in onnx.load(made.path).opset_import] == [("", opset)]
    with torch.no_grad():
        expected = made.module(torch.from_numpy(made.images[:3]))[2]
    assert run(made.path, made.images[:3])["ood_score"] == pytest.approx(expected.numpy(), abs=1e-3, rel=1e-4)


def test_an_opset_that_cannot_be_written_is_refused(make_shipped, tmp_path):
    made = make_shipped(tmp_path / "model.onnx", patch_size=2, colours=5, w_gen=0, **SHALLOW)
    with pytest.raises(UserError, match=r"export\.opset: this model cannot be written in opset 17, only in 18\."):
        export_onnx(made.module, 4, 1, made.path, opset=17)
    assert not made.path.exists()


def test_what_comes_out_makes_sense(exported):
    found = run(exported.path, exported.images)
    assert found["probabilities"].sum(1) == pytest.approx(np.ones(70), abs=1e-5)
    assert np.array_equal(found["is_ood"], found["ood_score"] > float(exported.module.threshold))
    assert 0 < found["is_ood"].mean() < 0.5
    shallow = exported.module.model.config.encoder_layers == 1  # with random weights it tells images apart less
    assert found["probabilities"].std(0).max() > (0.001 if shallow else 0.01)  # it looks at the image
    assert len(np.unique(found["embedding"], axis=0)) == len(exported.images)
