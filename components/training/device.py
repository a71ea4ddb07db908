"""Where and in which precision to compute."""

import torch

from components.errors import UserError
from components.training.config import TrainingConfig


def choose_device(config: TrainingConfig) -> torch.device:
    """The configured device; `auto` takes CUDA where there is one."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("training.device: cuda was asked for, but torch sees no GPU here. Set it to auto or cpu.")
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def choose_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The autocast type; `auto` takes bfloat16 where the hardware multiplies it natively (it is slower elsewhere)."""
    if config.precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def describe_hardware(device: torch.device) -> str:
    """One line that says what the numbers were made on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
