"""What a run costs, told before it starts."""

from components.model.build import Architecture
from components.model.gcrl import GCRL
from components.training.config import TrainingConfig
from components.training.device import choose_device, choose_dtype, describe_hardware


def describe(model: GCRL, architecture: Architecture, training: TrainingConfig) -> dict[str, str | int | float]:
    """Parameters, training GFLOP an image (two views; 6 · parameters in matrices · positions, attention left out),
    device and precision."""
    device = choose_device(training)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    positions = (architecture.image_size // architecture.model.patch_size) ** 2
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop_per_image": round(2 * 6 * matrices * positions / 1e9, 3),
        "precision": str(choose_dtype(training, device)).removeprefix("torch."),
        "hardware": describe_hardware(device),
    }
