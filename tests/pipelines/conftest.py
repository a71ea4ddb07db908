"""An MLflow store and a model to put into it, each made once for the session."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables (which take seconds to create) and nothing in them, to be copied."""
    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


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
