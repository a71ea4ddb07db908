"""The shipped model as one graph: uint8 pixels in; embedding, class probabilities and a calibrated OOD score out."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from components.errors import UserError
from components.evaluation.ood.detectors.fused import Fused
from components.evaluation.probes.linear_probe import LinearProbe
from components.export.session import INPUT, OUTPUTS
from components.model.gcrl import GCRL
from components.model.tokens import to_unit

if TYPE_CHECKING:
    import onnx_ir as ir


class ExportedModel(nn.Module):
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


def export_onnx(module: ExportedModel, image_size: int, channels: int, path: Path, opset: int) -> None:
    """Write the module as an ONNX file with a dynamic batch, and check it with onnx's checker.

    The same weights give the same bytes, wherever and however often they are exported: the file holds no trace of the
    exporting machine.

    Raises:
        UserError: the graph cannot be converted to `opset`.
    """
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
    written = program.model.opset_imports[""]
    if written != opset:  # the exporter warns, and leaves the graph as it was
        raise UserError(f"export.opset: this model cannot be written in opset {opset}, only in {written}.")
    graph = program.model.graph
    for node in graph:  # the exporter names a value after its operator: F.embedding's clashes with our output
        for value in node.outputs:
            if value.name in OUTPUTS and value not in graph.outputs:
                value.name = f"{value.name}_lookup"
    _count_axes_from_the_front(graph)
    proto = program.model_proto
    _drop_traces(proto)
    proto.producer_version = torch.__version__.partition("+")[0]  # without the build for one processor or another
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)


def _count_axes_from_the_front(graph: "ir.Graph") -> None:
    """ONNX Runtime does not reduce an empty batch over an axis that is counted from the end: the shape stays."""
    import onnx_ir as ir

    for node in graph:
        if not node.op_type.startswith("Reduce") or len(node.inputs) < 2:
            continue
        reduced, axes = (value for value in node.inputs if value is not None)
        shape, numbers = reduced.shape, axes.const_value
        assert shape is not None
        assert numbers is not None
        positive = ir.tensor(numbers.numpy() % len(shape), name=f"{node.name}_axes")
        graph.register_initializer(value := ir.Value(name=positive.name, const_value=positive))
        node.replace_input_with(1, value)
        if not axes.uses():
            del graph.initializers[axes.name or ""]


def _drop_traces(message: Any) -> None:
    """Clear the exporter's notes for debugging, source paths and stack traces, at every level of a protobuf message."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if isinstance(value, Iterable) else [value]:
                _drop_traces(part)
