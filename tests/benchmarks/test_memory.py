import os
import signal

import numpy as np
import torch

from benchmarks.memory import in_own_process
from benchmarks.scaling import blank


def process_number():
    return {"number": float(os.getpid())}


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def out_of_memory():
    torch.empty(2**60)


def test_a_function_runs_in_a_process_of_its_own():
    assert in_own_process(process_number)["number"] != os.getpid()


def test_a_process_that_runs_out_of_memory_has_no_result():
    assert in_own_process(killed) == {}
    assert in_own_process(out_of_memory) == {}


def test_a_million_images_take_no_room_on_the_disk(tmp_path):
    path = blank(tmp_path, 1_000_000, 32)
    assert np.load(path, mmap_mode="r").shape == (1_000_000, 32, 32, 3)
    assert path.stat().st_blocks * 512 < 1e6
