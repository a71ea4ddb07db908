from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SIZE = 4
CLASSES = ("dark", "bright")
THRESHOLD = 0.6


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of 4×4 grey images: the embedding is the brightness of each quarter, the OOD score their mean."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    quarter = np.arange(SIZE) // 2
    owner = (2 * quarter[:, None] + quarter).ravel()  # (16,): the quarter of each pixel
    pooling = (owner[:, None] == np.arange(4)).astype(np.float32) / (4 * 255)
    classifier = np.array([[-1.0, 1.0]] * 4, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "pooling"], ["embedding"]),
            helper.make_node("Sub", ["embedding", "grey"], ["centred"]),
            helper.make_node("MatMul", ["centred", "classifier"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
            helper.make_node("ReduceMean", ["embedding", "axis"], ["ood_score"], keepdims=0),
            helper.make_node("Greater", ["ood_score", "threshold"], ["is_ood"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIZE, SIZE, 1])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 4]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("ood_score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("is_ood", TensorProto.BOOL, ["N"]),
        ],
        [
            numpy_helper.from_array(pooling, "pooling"),
            numpy_helper.from_array(classifier, "classifier"),
            numpy_helper.from_array(np.float32(0.5), "grey"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
            numpy_helper.from_array(np.float32(THRESHOLD), "threshold"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(made)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    save(made, path)
    return path


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    """`draw(count, low, high)`: random images uint8 (count, 4, 4, 1)."""

    def draw(count: int, low: int = 0, high: int = 256, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(low, high, (count, SIZE, SIZE, 1), dtype=np.uint8)

    return draw


@pytest.fixture
def reference(model: Path, draw: Callable[..., np.ndarray]) -> Any:
    """Of 300 random images, some 8 % of which are above the threshold."""
    from components.export.reference import Reference

    return Reference.of(model, draw(300), CLASSES, reading={}, false_alarm_rate=0.08, threshold=THRESHOLD)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[np.ndarray], Path]:
    """`folder(images)` holds them as 00000.png …"""
    from PIL import Image

    def make(images: np.ndarray) -> Path:
        path = tmp_path / "incoming"
        path.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(path / f"{number:05}.png")
        return path

    return make
