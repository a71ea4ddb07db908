"""How the exported graph is checked. No tensor library is imported here."""

from dataclasses import dataclass

OLDEST_OPSET, NEWEST_OPSET = 18, 25


@dataclass(frozen=True)
class ExportConfig:
    """Limits that the ONNX graph must keep against PyTorch in float32."""

    tolerance: float = 1e-3  # largest absolute difference in embedding and probabilities, relative in ood_score
    batch_sizes: tuple[int, ...] = (1, 7, 64)
    opset: int = 20  # from OLDEST_OPSET to NEWEST_OPSET, which PyTorch's exporter can write

    def __post_init__(self) -> None:
        if self.tolerance <= 0:
            raise ValueError("tolerance must be positive")
        if not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
            raise ValueError(f"opset must lie between {OLDEST_OPSET} and {NEWEST_OPSET}, not {self.opset}")
        if len(set(self.batch_sizes)) < 2 or min(self.batch_sizes) < 1:
            raise ValueError("batch_sizes must hold two different sizes or more: one alone hides a fixed shape")
