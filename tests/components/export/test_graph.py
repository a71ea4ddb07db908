import numpy as np
import onnx
import pytest
import torch

from components.export.graph import OUTPUTS
from components.export.parity import open_session


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


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_any_number_of_images(exported, size):
    with torch.no_grad():
        expected = exported.module(torch.from_numpy(exported.images[:size]))
    found = run(exported.path, exported.images[:size])
    for name, value in zip(OUTPUTS, expected, strict=True):
        assert found[name].shape == value.shape
        assert found[name].dtype == value.numpy().dtype
        assert found[name].astype(float) == pytest.approx(value.numpy().astype(float), abs=1e-3, rel=1e-4), name


def test_what_comes_out_makes_sense(exported):
    found = run(exported.path, exported.images)
    assert found["probabilities"].sum(1) == pytest.approx(np.ones(70), abs=1e-5)
    assert np.array_equal(found["is_ood"], found["ood_score"] > float(exported.module.threshold))
    assert 0 < found["is_ood"].mean() < 0.5
    assert found["probabilities"].std(0).max() > 0.01  # it looks at the image
