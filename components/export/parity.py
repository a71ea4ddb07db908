"""Whether the ONNX graph does what the PyTorch model does, and how fast."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from components.errors import UserError
from components.export.config import ExportConfig
from components.export.graph import ExportedModel
from components.export.session import OUTPUTS, open_session, run_session

TIMED_SECONDS = 0.5  # at least so long for each timing


def check_parity(module: ExportedModel, path: Path, images: np.ndarray, config: ExportConfig) -> dict[str, float]:
    """Compare ONNX Runtime with PyTorch on uint8 images (N, H, W, C) at every batch size of the configuration.

    Returns the largest differences: absolute in embedding and probabilities, relative in ood_score.
    Raises UserError where one is above the tolerance or no number, or where a decision (class, is_ood) differs that is
    not a tie within it.
    """
    session = open_session(path)
    reference = _in_batches(lambda x: _torch(module, x), images, 256)
    worst: dict[str, float] = {}
    threshold = float(module.threshold)
    for size in config.batch_sizes:
        found = _in_batches(lambda x: run_session(session, x), images, size)
        scale = np.maximum(1.0, np.abs(reference["ood_score"]))
        top_two = np.sort(reference["probabilities"], axis=1)[:, -2:]
        other_class = found["probabilities"].argmax(1) != reference["probabilities"].argmax(1)
        other_flag = found["is_ood"] != reference["is_ood"]
        differences = {
            "embedding": np.abs(found["embedding"] - reference["embedding"]).max(),
            "probabilities": np.abs(found["probabilities"] - reference["probabilities"]).max(),
            "ood_score": (np.abs(found["ood_score"] - reference["ood_score"]) / scale).max(),
            "different_decisions": np.maximum(
                (other_flag & (np.abs(reference["ood_score"] - threshold) > config.tolerance * scale)).mean(),
                (other_class & (np.diff(top_two)[:, 0] > config.tolerance)).mean(),
            ),
        }
        # not max(), which drops NaN
        worst = {name: float(np.maximum(worst.get(name, 0.0), value)) for name, value in differences.items()}
    metrics = {f"parity/{name}": value for name, value in worst.items()}
    failed = [f"{name} {value:.2e}" for name, value in metrics.items() if not value <= config.tolerance]
    if failed or worst["different_decisions"]:
        raise UserError(
            f"export: the ONNX graph differs from PyTorch by more than export.tolerance ({config.tolerance:g}): "
            f"{', '.join(failed) or 'decisions differ'}. Nothing was exported."
        )
    return metrics


def time_inference(module: ExportedModel, path: Path, images: np.ndarray) -> dict[str, float]:
    """Milliseconds for one image, and images a second in batches of 64, of ONNX Runtime and PyTorch on the CPU."""
    session = open_session(path)
    batch = np.resize(images, (64, *images.shape[1:]))
    metrics = {}
    runtimes: dict[str, Callable[[np.ndarray], object]] = {
        "onnx": lambda x: run_session(session, x),
        "torch": lambda x: _torch(module, x),
    }
    for name, call in runtimes.items():
        metrics[f"{name}_latency_ms"] = 1000 * _seconds(call, batch[:1])
        metrics[f"{name}_images_per_second"] = len(batch) / _seconds(call, batch)
    return metrics


@torch.no_grad()
def _torch(module: ExportedModel, images: np.ndarray) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in zip(OUTPUTS, module(torch.from_numpy(np.array(images))), strict=True)}


def _in_batches(
    call: Callable[[np.ndarray], dict[str, np.ndarray]], images: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    parts = [call(np.array(images[start : start + size])) for start in range(0, len(images), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS}


def _seconds(call: Callable[[np.ndarray], object], images: np.ndarray) -> float:
    """Median duration of a call, after three to warm up."""
    for _ in range(3):
        call(images)
    durations: list[float] = []
    while sum(durations) < TIMED_SECONDS:
        started = time.perf_counter()
        call(images)
        durations.append(time.perf_counter() - started)
    return float(np.median(durations))
