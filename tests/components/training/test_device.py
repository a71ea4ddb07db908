import os
from pathlib import Path

import pytest
import torch

from components.errors import UserError
from components.training.config import TrainingConfig
from components.training.device import (
    choose_device,
    choose_dtype,
    compilation_is_explained,
    compiles,
    describe_hardware,
    numerics,
)

CPU = torch.device("cpu")


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**{"steps": 100, "batch_size": 4, "learning_rate": 1.0, **changes})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_auto_takes_the_cpu_where_there_is_no_gpu():
    assert choose_device(config()) == CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_auto_takes_the_gpu_where_there_is_one():
    assert choose_device(config()).type == "cuda"


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


@pytest.mark.parametrize(("asked", "cpu", "cuda"), [("auto", False, True), (True, True, True), (False, False, False)])
def test_auto_compiles_on_a_gpu_alone(asked, cpu, cuda):
    assert compiles(config(compile=asked), CPU) == cpu
    assert compiles(config(compile=asked), torch.device("cuda")) == cuda


def test_deterministic_kernels_for_the_time_of_a_run():
    with numerics(config(deterministic=True), CPU):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_the_gpus_and_for_the_time_of_a_run(tf32):
    before = torch.get_float32_matmul_precision()
    with numerics(config(tf32=tf32), torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert torch.get_float32_matmul_precision() == before
    with numerics(config(tf32=tf32), CPU):
        assert torch.get_float32_matmul_precision() == before


def test_a_machine_without_a_compiler(tmp_path, monkeypatch):
    import torch._inductor.config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/nonexistent/g++"))
    product = torch.compile(lambda x: (x @ x).sin())
    with pytest.raises(UserError) as refused, compilation_is_explained(True):
        product(torch.ones(2, 2))
    assert str(refused.value).startswith("training.compile: compilation failed here (InvalidCxxCompiler")
    assert str(refused.value).endswith("Set it to false.")
    with pytest.raises(RuntimeError, match="another"), compilation_is_explained(True):
        raise RuntimeError("another mistake")
