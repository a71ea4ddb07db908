from pathlib import Path

import pytest
import torch

from components.errors import UserError
from components.training.config import TrainingConfig
from components.training.device import choose_device, choose_dtype, describe_hardware

CPU = torch.device("cpu")


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**{"steps": 100, "batch_size": 4, "learning_rate": 1.0, **changes})


def test_auto_takes_the_gpu_where_there_is_one():
    assert choose_device(config()).type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_cpu_can_be_asked_for():
    assert choose_device(config(device="cpu")) == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there():
    with pytest.raises(UserError, match=r"training\.device: cuda was asked for, but torch sees no GPU"):
        choose_device(config(device="cuda"))


@pytest.mark.parametrize(("asked", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_precision_asked_for_is_taken(asked, dtype):
    assert choose_dtype(config(precision=asked), CPU) == dtype


def test_auto_is_bfloat16_exactly_where_the_cpu_multiplies_it_natively():
    facts = Path("/proc/cpuinfo")
    if not facts.exists():
        pytest.skip("no /proc/cpuinfo to compare with")
    assert (choose_dtype(config(), CPU) == torch.bfloat16) == ("avx512_bf16" in facts.read_text())


def test_the_hardware_is_named():
    assert describe_hardware(CPU).startswith(f"CPU, {torch.get_num_threads()} threads, ")
