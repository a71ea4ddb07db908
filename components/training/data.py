"""Batches: which images a step sees is a function of seed and step alone."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from components.errors import ConfigError


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
        return shuffle[position * batch_size : (position + 1) * batch_size]

    return indices


def gather(images: np.ndarray, device: torch.device) -> Callable[[np.ndarray], Tensor]:
    """A function from indices (B,) to pixels uint8 (B, H, W, C) on the device.

    The whole set lives on a GPU that has room for it four times over; else rows come from the (memory-mapped) array.
    """
    if device.type == "cuda" and images.nbytes * 4 < torch.cuda.mem_get_info(device)[0]:
        resident = torch.from_numpy(np.array(images)).to(device)
        return lambda indices: resident[torch.from_numpy(indices).to(device)]
    # a sorted read walks a memory-mapped file forward; the order inside a batch carries no meaning to keep
    return lambda indices: torch.from_numpy(images[np.sort(indices)]).to(device, non_blocking=True)


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step, independent of every other step's."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))
