"""Which images a model knows: those that it was trained, tuned or calibrated on."""

import numpy as np

from components.data.prepared import Prepared

FILE = "known_images.npy"


def known_images(prepared: Prepared) -> np.ndarray:
    """The images of train, val and the pretraining set: uint64 (N,), ascending, the first 64 bits of each SHA-256."""
    splits = {"train", "val", prepared.pretrain_split}
    return np.unique(np.concatenate([_bits(prepared, split) for split in splits]))


def unknown_rows(prepared: Prepared, split: str, known: np.ndarray) -> np.ndarray:
    """Rows of a split, int64 (M,), whose images are not among the known ones."""
    return np.flatnonzero(~np.isin(_bits(prepared, split), known))


def _bits(prepared: Prepared, split: str) -> np.ndarray:
    return np.array([int(sha256[:16], 16) for sha256 in prepared.sha256(split)], dtype=np.uint64)
