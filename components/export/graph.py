"""The shipped model as one graph: uint8 pixels in; embedding, class probabilities and a calibrated OOD score out."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from components.evaluation.ood.detectors.fused import Fused
from components.evaluation.probes.linear_probe import LinearProbe
from components.export.session import INPUT, OUTPUTS
from components.model.gcrl import GCRL
from components.model.tokens import to_unit


class Shipped(nn.Module):
    """Preprocessing, encoder, probe and the fused OOD score in one module, in float32.

    Everything that was fitted outside of torch (probe, whitening, thresholds) is kept in buffers. Whitened distances
    are computed as differences, not by expanding the square, which would cancel in float32.
    """

    weight: Tensor
    bias: Tensor
    center: Tensor
    whitening: Tensor
    means: Tensor
    locations: Tensor
    scales: Tensor
    threshold: Tensor

    def __init__(self, model: GCRL, probe: LinearProbe, fused: Fused, threshold: float) -> None:
        super().__init__()
        self.model = model.eval()
        self.temperature = probe.temperature
        self.has_likelihood = len(fused.locations) == 2
        fitted = {
            "weight": probe.weight,
            "bias": probe.bias,
            "center": fused.center,
            "whitening": fused.whitening,
            "means": fused.means,
            "locations": fused.locations,
            "scales": fused.scales,
            "threshold": np.float32(threshold),
        }
        for name, value in fitted.items():
            self.register_buffer(name, torch.as_tensor(np.asarray(value), dtype=torch.float32))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embedding (N, D), probabilities (N, K), ood_score (N,), is_ood bool (N,) of uint8 images (N, H, W, C)."""
        outputs = self.model(self.model.tokenizer(to_unit(image)))
        features = outputs.features
        probabilities = ((features @ self.weight.T + self.bias) / self.temperature).softmax(-1)
        white = (features - self.center) @ self.whitening  # (N, D)
        squared = (white[:, None] - self.means).square().sum(-1)  # (N, K)
        score = (squared.amin(-1).sqrt() - self.locations[0]) / self.scales[0]
        if self.has_likelihood:
            bits = outputs.nll.mean((1, 2)) / (np.log(2) * image.shape[3])  # (N,)
            score = score + ((bits - self.locations[1]) / self.scales[1]).abs()
        return features, probabilities, score, score > self.threshold


def export_onnx(module: Shipped, image_size: int, channels: int, path: Path, opset: int) -> None:
    """Write the module as an ONNX file with a dynamic batch, and check it with onnx's checker."""
    import onnx

    example = torch.zeros(2, image_size, image_size, channels, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns of its own use of a name that it deprecates
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=2**20)},),
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    for node in graph:  # the exporter names a value after its operator: F.embedding's clashes with our output
        for value in node.outputs:
            if value.name in OUTPUTS and value not in graph.outputs:
                value.name = f"{value.name}_lookup"
    program.save(path)
    onnx.checker.check_model(str(path), full_check=True)
