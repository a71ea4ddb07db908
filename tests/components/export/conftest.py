from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.permuted import PermutedConfig
from components.objectives.generative.pixelcnn import PixelCNNConfig

CLASSES = 3
REDUCED = AutoregressiveConfig(image_size=2, patch_size=2)
SIZE = 4
SHALLOW = {"encoder_layers": 1, "decoder_layers": 1}
# the first one alone has several layers: exporting takes seconds, more with each
KINDS: dict[str, dict[str, Any]] = {
    "hybrid on grey patches": {"patch_size": 2, "colours": 5},
    "hybrid on RGB pixels": {"patch_size": 1, "colours": 40, "channels": 3, **SHALLOW},
    "logistic mixture": {"patch_size": 2, "channels": 3, "likelihood": "logistic_mixture", **SHALLOW},
    "categorical": {"patch_size": 2, "channels": 3, "likelihood": "categorical", **SHALLOW},
    "contrastive": {"patch_size": 2, "colours": 5, "w_gen": 0, **SHALLOW},
    "orders": {"patch_size": 2, "colours": 5, "generative": PermutedConfig(orders=2), **SHALLOW},
    "convolutions": {
        **{"patch_size": 1, "channels": 3, "likelihood": "logistic_mixture", "generative": PixelCNNConfig()},
        **SHALLOW,
    },
    "reduced": {"patch_size": 4, "channels": 3, "likelihood": "logistic_mixture", "generative": REDUCED, **SHALLOW},
}


class Exported(NamedTuple):
    module: Any  # ExportedModel
    path: Path
    images: np.ndarray  # uint8 (70, 4, 4, C): 70 is no multiple of 64 nor of 7 + 1
    probe: Any  # LinearProbe
    fused: Any  # Fused
    batch: Any  # Batch: features and bits/dim of the images


@pytest.fixture(scope="session")
def make_shipped(make_model) -> Callable[..., Exported]:
    """Probe and OOD score fitted on random images around a model with random weights; nothing is exported yet."""
    import torch

    from components.evaluation.ood.base import Batch, InDistribution
    from components.evaluation.ood.detectors.fused import Fused
    from components.evaluation.probes.linear_probe import Labelled, LinearProbe
    from components.export.graph import ExportedModel
    from components.model.encode import encode_images

    def make(path: Path, **architecture: Any) -> Exported:
        model = make_model(image_size=SIZE, **architecture)
        channels = architecture.get("channels", 1)
        images = np.random.default_rng(0).integers(0, 256, (70, SIZE, SIZE, channels), dtype=np.uint8)
        features, nll = encode_images(model, images, torch.device("cpu"))
        bits = None if nll is None else (nll / (np.log(2) * channels)).numpy()
        batch = Batch(features.numpy(), images, bits)
        rng = np.random.default_rng(1)
        probe = LinearProbe(rng.normal(size=(CLASSES, 16)), rng.normal(size=CLASSES), temperature=1.7, l2=0.1)
        train = Labelled(batch.features, np.arange(70) % CLASSES)
        fused = Fused.fit(InDistribution(train, batch, probe), k=1)
        threshold = float(np.quantile(fused.score(batch), 0.8))
        return Exported(ExportedModel(model, probe, fused, threshold), path, images, probe, fused, batch)

    return make


@pytest.fixture(scope="session", params=KINDS)
def exported(request, make_shipped, made_once) -> Exported:
    """An exported model, once for all tests of all workers: exporting takes seconds."""
    from components.export.graph import export_onnx

    made = make_shipped(Path(), **KINDS[request.param])

    def export(folder: Path) -> None:
        export_onnx(made.module, SIZE, made.images.shape[3], folder / "model.onnx", opset=20)

    return made._replace(path=made_once(f"exported {request.param}", export) / "model.onnx")
