import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.training.memory import ran_out

WITH_LITTLE_MEMORY = """
import resource, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from components.data.config import AugmentationConfig
from components.errors import UserError
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig
from components.training.config import TrainingConfig
from components.training.loop import pretrain
from components.training.validation import PretrainData

folder, micro = Path(sys.argv[1]), int(sys.argv[2]) or None
images = np.random.default_rng(0).integers(0, 256, (256, 16, 16, 1), dtype=np.uint8)
few = (images[:8], np.arange(8))
variant, palette = VariantConfig(1, 1), np.arange(0, 256, 4, dtype=np.uint8)[:, None]
config = TrainingConfig(2, 256, 0.01, warmup_steps=1, device="cpu", precision="float32", micro_batch_size=micro)


def train(config):
    model = build(Architecture.of(ModelConfig(2, 64, 2, 3, 2, 16), variant, 16, palette), palette, 0)
    data = PretrainData(images, few, few)
    return pretrain(model, data, variant, config, AugmentationConfig(), 0, folder / "r.pt", "key", lambda *_: None)


train(replace(config, steps=1, warmup_steps=0, batch_size=16, micro_batch_size=None))  # what is loaded once is loaded
(folder / "r.pt").unlink()
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize:"))
resource.setrlimit(resource.RLIMIT_AS, (size + 400_000_000, resource.RLIM_INFINITY))
try:
    print("trained to step", train(config).step)
except UserError as error:
    print(f"error: {error}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_out_of_memory_is_told_with_a_setting_that_fits(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}

    def run(micro_batch_size: int) -> str:
        command = [sys.executable, "-c", WITH_LITTLE_MEMORY, tmp_path, str(micro_batch_size)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout

    told = run(0)
    assert re.match(
        r"error: out of memory on cpu: a pass of 256 images \(2 views each\) takes about [\d.]+ GB", told
    ), told
    proposed = re.search(
        r"Set training\.micro_batch_size to (\d+) \(same result, more time\), or lower training\.batch_size", told
    )
    assert proposed, told
    assert 8 <= int(proposed[1]) < 256
    assert run(int(proposed[1])) == "trained to step 2\n"


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, memory):
    assert ran_out(error) == memory
