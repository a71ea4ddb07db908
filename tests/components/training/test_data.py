import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.errors import ConfigError
from components.training.data import AHEAD, batch_order, batches, step_generator

CPU = torch.device("cpu")
TRAINED_ON_A_SPARSE_FILE = """
import resource, sys
from pathlib import Path
import numpy as np
from components.data.config import AugmentationConfig
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig
from components.training.config import TrainingConfig
from components.training.loop import pretrain
from components.training.validation import PretrainData

folder = Path(sys.argv[1])
variant, palette = VariantConfig(1, 1), np.zeros((2, 3), np.uint8)
architecture = Architecture.of(ModelConfig(16, 16, 2, 1, 1, 2, 8, 8), variant, 64, palette)
few = (np.zeros((4, 64, 64, 3), np.uint8), np.zeros(4, np.int64))
config = TrainingConfig(4, 64, 0.01, warmup_steps=1, device="cpu", precision="float32")
for images in (1_000, 1_000_000):
    file = folder / f"{images}.npy"
    np.lib.format.open_memmap(file, "w+", np.uint8, (images, 64, 64, 3)).flush()
    finer = folder / f"{images}-finer.npy"
    np.lib.format.open_memmap(finer, "w+", np.uint8, (images, 128, 128, 3)).flush()
    data = PretrainData(np.load(file, mmap_mode="r"), few, few, finer=np.load(finer, mmap_mode="r"))
    pretrain(
        build(architecture, palette, 0), data, variant, config, AugmentationConfig(), 0, folder / f"{images}.pt", "key",
        lambda step, metrics: None,
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@given(st.integers(2, 50), st.integers(2, 50), st.integers(0, 5))
def test_an_epoch_shows_no_image_twice_and_leaves_out_less_than_a_batch(images, batch_size, seed):
    if images < batch_size:
        return
    order = batch_order(images, batch_size, seed)
    per_epoch = images // batch_size
    for epoch in range(3):
        seen = np.concatenate([order(epoch * per_epoch + i) for i in range(per_epoch)])
        assert len(set(seen.tolist())) == len(seen) == per_epoch * batch_size > images - batch_size
        assert 0 <= seen.min() <= seen.max() < images


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(0, 3))
def test_a_batch_is_a_function_of_seed_and_step_alone(asked_before, seed):
    order = batch_order(23, 5, seed)
    for step in asked_before:
        order(step)
    assert np.array_equal(order(17), batch_order(23, 5, seed)(17))


def test_epochs_and_seeds_differ():
    order, other = batch_order(100, 50, 0), batch_order(100, 50, 1)
    assert not np.array_equal(order(0), order(2))  # the first batch of the next epoch
    assert not np.array_equal(order(0), other(0))


def test_fewer_images_than_a_batch():
    batch_order(8, 8, 0)
    with pytest.raises(
        ConfigError, match=r"training\.batch_size: 9, but there are only 8 images.*Lower it to 8 or less"
    ):
        batch_order(8, 9, 0)


@pytest.fixture
def mapped(tmp_path) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.mark.parametrize("steps", [range(0), range(2), range(3, 30)], ids="{0.start} to {0.stop}".format)
def test_batches_come_in_order_from_a_read_only_mapped_file(mapped, steps, recwarn):
    order, before = batch_order(20, 6, 0), mapped.copy()
    found = list(batches(mapped, order, steps, slice(0, 6), CPU))
    assert len(found) == len(steps)
    for step, pixels in zip(steps, found, strict=True):
        assert pixels.dtype == torch.uint8
        assert np.array_equal(pixels, mapped[order(step)])
        pixels.zero_()  # it is the step's own
    assert np.array_equal(mapped, before)
    assert not recwarn.list


def test_processes_get_their_share_of_each_batch(mapped):
    order = batch_order(20, 6, 0)
    shares = [list(batches(mapped, order, range(4), slice(3 * r, 3 * r + 3), CPU)) for r in (0, 1)]
    for step, (first, second) in enumerate(zip(*shares, strict=True)):
        assert np.array_equal(torch.cat([first, second]), mapped[order(step)])


def test_only_a_few_batches_are_read_ahead_and_none_after_the_end():
    asked: list[int] = []

    def order(step: int) -> np.ndarray:
        asked.append(step)
        return np.arange(3)

    found = batches(np.zeros((9, 1, 1, 1), np.uint8), order, range(100), slice(3), CPU)
    for taken in range(1, 6):
        next(found)
        assert len(asked) <= taken + AHEAD
    found.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
    assert len(asked) <= 5 + AHEAD


def test_a_file_that_cannot_be_read_stops_the_run_with_its_error():
    def order(step: int) -> np.ndarray:
        return np.array([step])  # the fourth image is not there

    found = batches(np.zeros((3, 1, 1, 1), np.uint8), order, range(9), slice(1), CPU)
    with pytest.raises(IndexError, match="index 3 is out of bounds"):
        list(found)


def test_a_million_images_train_without_being_loaded(tmp_path):
    """Sparse files of 12 and 49 GB: what a run holds does not depend on how many images there are."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAINED_ON_A_SPARSE_FILE, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    thousand, million = map(int, done.stdout.split())  # the largest memory so far
    assert million - thousand < 100e6  # of 12.3 GB; the shuffle alone is 8 MB, and as much again while it is drawn


def test_each_step_has_random_numbers_of_its_own():
    def numbers(seed: int, step: int) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=step_generator(seed, step, CPU)).tolist())

    assert numbers(0, 3) == numbers(0, 3)
    assert len({numbers(seed, step) for seed in range(5) for step in range(20)}) == 100
