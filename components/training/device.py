"""Where, in which precision and by which kernels to compute."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

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


def compiles(config: TrainingConfig, device: torch.device) -> bool:
    """Whether passes are compiled; `auto`: on CUDA (on a CPU the gain is less than what compilation takes)."""
    return device.type == "cuda" if config.compile == "auto" else config.compile


@contextmanager
def compilation_is_explained(compiled: bool) -> Iterator[None]:
    """Turn a failed compilation, mostly one without a compiler, into a UserError."""
    if not compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"training.compile: compilation failed here ({reason}). Set it to false.") from error


@contextmanager
def numerics(config: TrainingConfig, device: torch.device) -> Iterator[None]:
    """Choose the process's kernels for the time of a run: deterministic ones, TF32."""
    deterministic, precision = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(precision)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Gigabytes of a GPU that this process has had in use at once since `forget_peak_memory`; nothing elsewhere."""
    return {"peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9} if device.type == "cuda" else {}


def forget_peak_memory(device: torch.device) -> None:
    """Count a GPU's peak from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def cpu_threads(config: TrainingConfig) -> int:
    """Threads that compute together in this process; 1 where a GPU does, or several processes share the work."""
    alone = config.processes == 1 and choose_device(config).type == "cpu"
    return torch.get_num_threads() if alone else 1


def describe_hardware(device: torch.device) -> str:
    """One line that says what the numbers were made on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
