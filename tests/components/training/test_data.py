import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.errors import ConfigError
from components.training.data import batch_order, gather, step_generator

CPU = torch.device("cpu")


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
    order, other = batch_order(100, 100, 0), batch_order(100, 100, 1)
    assert not np.array_equal(order(0), order(1))
    assert not np.array_equal(order(0), other(0))


def test_fewer_images_than_a_batch():
    batch_order(8, 8, 0)
    with pytest.raises(
        ConfigError, match=r"training\.batch_size: 9, but there are only 8 images.*Lower it to 8 or less"
    ):
        batch_order(8, 9, 0)


def test_a_batch_is_gathered_from_a_read_only_mapped_file(tmp_path, recwarn):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    batch = gather(mapped, CPU)(np.array([7, 3, 19]))
    assert batch.dtype == torch.uint8
    assert {image.numpy().tobytes() for image in batch} == {images[i].tobytes() for i in (3, 7, 19)}
    batch.zero_()
    assert np.array_equal(mapped, images)
    assert not recwarn.list


def test_each_step_has_random_numbers_of_its_own():
    def numbers(seed: int, step: int) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=step_generator(seed, step, CPU)).tolist())

    assert numbers(0, 3) == numbers(0, 3)
    assert len({numbers(seed, step) for seed in range(5) for step in range(20)}) == 100
