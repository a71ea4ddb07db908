"""A small params.yaml, with changes; an MLflow store and a model to put into it, each made once for the session."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from pipelines.config.params import Params, load_params

MINIMAL: dict[str, Any] = {
    "seed": 0,
    "data": {
        "image_size": 8,
        "channels": 1,
        "labelled": {"builtin": "digits"},
        "ood": {
            "near-one": {"distance": "near", "held_out_classes": ["4"]},
            "far-one": {"distance": "far", "shuffled_test": True},
        },
    },
    "model": {"patch_size": 2},
    "augmentation": {},
    "training": {"steps": 100, "batch_size": 16, "learning_rate": 0.01},
    "variants": {"hybrid": {"w_gen": 1, "w_con": 1}},
    "students": {},
    "embed": {},
    "probe": {},
    "ood": {"detectors": ["knn", "fused"]},
    "export": {},
    "gate": {"score": ["linear_accuracy", "near_ood_auroc", "far_ood_auroc"]},
    "tracking": {},
}  # fmt: skip


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Params]:
    """Load a valid configuration with changes: load({"model.patch_size": 4}) or load(text="…").

    A value of `...` removes the key.
    """

    def with_changes(changes: dict[str, Any] | None = None, text: str | bytes | None = None) -> Params:
        path = tmp_path / "params.yaml"
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            return load_params(path)
        raw = copy.deepcopy(MINIMAL)
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            section = raw
            for parent in parents:
                section = section.setdefault(parent, {})
            if value is ...:
                del section[last]
            else:
                section[last] = value
        with path.open("w") as file:
            YAML().dump(raw, file)
        return load_params(path)

    return with_changes


@pytest.fixture(scope="session")
def empty_store(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A SQLite file with MLflow's tables (which take seconds to create) and nothing in them, to be copied."""

    def make(folder: Path) -> None:
        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once("empty-store", make) / "mlflow.db"


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model: uint8 images (N, 2, 2, 1) to embedding, probabilities, ood_score and is_ood; with an example."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    weights = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 2.0]], dtype=np.float32) / 255
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
            helper.make_node("Softmax", ["embedding"], ["probabilities"]),
            helper.make_node("ReduceSum", ["embedding", "axis"], ["ood_score"], keepdims=0),
            helper.make_node("Greater", ["ood_score", "threshold"], ["is_ood"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 2, 2, 1])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("ood_score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("is_ood", TensorProto.BOOL, ["N"]),
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
            numpy_helper.from_array(np.array(2.0, dtype=np.float32), "threshold"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    folder = tmp_path_factory.mktemp("onnx")
    save(model, folder / "model.onnx")
    np.save(folder / "example.npy", np.zeros((2, 2, 2, 1), dtype=np.uint8))
    return folder / "model.onnx"
