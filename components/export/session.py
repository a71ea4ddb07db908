"""The exported file in ONNX Runtime: what goes in, what comes out. Needs no torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

INPUT = "image"
OUTPUTS = ("embedding", "probabilities", "ood_score", "is_ood")
CPU = ("CPUExecutionProvider",)


def open_session(path: Path, providers: Sequence[str] = CPU):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    """A quiet ONNX Runtime session on the first of these execution providers that this machine has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    present = [name for name in providers if name in onnxruntime.get_available_providers()]
    return onnxruntime.InferenceSession(str(path), options, providers=present)


def run_session(session, images: np.ndarray) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    """Every output by its name, of uint8 images (N, H, W, C)."""
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: images}), strict=True))
