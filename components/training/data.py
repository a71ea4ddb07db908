"""Batches: which images a step sees is a function of seed and step alone."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from components.errors import ConfigError

AHEAD = 3  # batches that are read before they are needed


def batch_order(images: int, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """A function from step to the batch's image indices (B,): epochs of distinct shuffles, the incomplete rest dropped.

    There is no sampler state to save: a run that resumes at a step draws what the uninterrupted one would have.
    """
    if images < batch_size:
        raise ConfigError(
            f"training.batch_size: {batch_size}, but there are only {images} images to pretrain on. "
            f"Lower it to {images} or less."
        )
    per_epoch = images // batch_size
    shuffle = np.empty(0, dtype=np.int64)
    shuffled_epoch = -1

    def indices(step: int) -> np.ndarray:
        nonlocal shuffle, shuffled_epoch
        epoch, position = divmod(step, per_epoch)
        if epoch != shuffled_epoch:
            shuffle, shuffled_epoch = np.random.default_rng([seed, epoch]).permutation(images), epoch
        # sorted, a read walks a memory-mapped file forward; the order inside a batch carries no meaning to keep
        return np.sort(shuffle[position * batch_size : (position + 1) * batch_size])

    return indices


def batches(
    images: np.ndarray, order: Callable[[int], np.ndarray], steps: range, share: slice, device: torch.device
) -> Generator[Tensor]:
    """The pixels uint8 (b, H, W, C) of each step on the device: the images `share` of its batch.

    The whole set lives on a GPU that has room for it four times over. Elsewhere a thread reads the next few batches
    from the array, which may be a memory-mapped file of any size; what they hold and their order are the same.
    """
    if device.type == "cuda" and images.nbytes * 4 < torch.cuda.mem_get_info(device)[0]:
        resident = torch.from_numpy(np.array(images)).to(device)
        for step in steps:  # a copy that blocks would wait for the steps before
            yield resident[torch.from_numpy(order(step)[share]).to(device, non_blocking=True)]
        return

    def read(step: int) -> Tensor:
        rows = torch.from_numpy(images.take(order(step)[share], axis=0))
        return rows.pin_memory() if device.type == "cuda" else rows

    with ThreadPoolExecutor(1, "batches") as reader:
        ahead: deque[Future[Tensor]] = deque(reader.submit(read, step) for step in steps[:AHEAD])
        for step in range(steps.start + AHEAD, steps.stop + AHEAD):
            pixels = ahead.popleft().result()
            if step < steps.stop:
                ahead.append(reader.submit(read, step))
            yield pixels.to(device, non_blocking=True)


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step, independent of every other step's."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))
