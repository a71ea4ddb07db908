"""Writing a split: the array of its images, and one manifest row an image."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from components.data.image_store import ImagePool

BLOCK = 4096  # images held in memory together
FINER_BLOCK = 64
LUMA = np.array([19595, 38470, 7471])  # ITU-R 601 weights of R, G, B over 65536, as Pillow rounds them


def write_split(path: Path, name: str, rows: np.ndarray, labels: np.ndarray, pool: ImagePool) -> pa.Table:
    """Write images `rows` of the pool as .npy, uint8 (N, H, W, C); return their manifest. `labels` is int64 (N,)."""
    height, width, channels = pool.shape
    statistics = []
    with _array_file(path, (len(rows), *pool.shape)) as file:
        for start in range(0, len(rows), BLOCK):
            images = pool.images(rows[start : start + BLOCK])
            file.write(images.tobytes())
            statistics.append(image_statistics(images))
    columns = {key: np.concatenate([block[key] for block in statistics]) for key in statistics[0]}
    return pa.table(
        {
            "split": [name] * len(rows),
            "index": np.arange(len(rows)),
            "source": [pool.source[row] for row in rows],
            "path": [pool.path[row] for row in rows],
            "sha256": [pool.sha256[row] for row in rows],
            "label": labels.astype(np.int64),
            "class_name": [pool.class_name[row] for row in rows],
            "converted": [pool.converted[row] for row in rows],
            "width": np.full(len(rows), width),
            "height": np.full(len(rows), height),
            "channels": np.full(len(rows), channels),
            **columns,
        }
    )


def write_finer(path: Path, rows: np.ndarray, pool: ImagePool) -> str:
    """Write the same rows with more pixels as .npy; returns the SHA-256 (hex) of all pixels."""
    assert pool.finer is not None
    digest = hashlib.sha256()
    with _array_file(path, (len(rows), *pool.finer.shape)) as file:
        for start in range(0, len(rows), FINER_BLOCK):
            pixels = pool.finer_images(rows[start : start + FINER_BLOCK]).tobytes()
            file.write(pixels)
            digest.update(pixels)
    return digest.hexdigest()


@contextmanager
def _array_file(path: Path, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """A file of uint8 whose header is written: the pixels follow."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        yield file


def image_statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each channel (0…255) and entropy of the grey-level histogram (bits).

    `images` is uint8 (N, H, W, C); every value is float64 (N,), named mean_0…, std_0…, entropy.
    """
    count, channels = len(images), images.shape[-1]
    pixels = images.reshape(count, -1, channels)  # (N, P, C)
    grey = pixels[..., 0].astype(np.int64) if channels == 1 else (pixels @ LUMA + 32768) >> 16  # (N, P)
    bins = (np.arange(count)[:, None] * 256 + grey).ravel()
    share = np.bincount(bins, minlength=count * 256).reshape(count, 256) / pixels.shape[1]
    entropy = -(share * np.log2(share, where=share > 0, out=np.zeros_like(share))).sum(axis=1)
    means, deviations = pixels.mean(axis=1), pixels.std(axis=1)  # (N, C)
    return {
        **{f"mean_{c}": means[:, c] for c in range(channels)},
        **{f"std_{c}": deviations[:, c] for c in range(channels)},
        "entropy": entropy,
    }


def fingerprint(parts: Sequence[str]) -> str:
    """SHA-256 (hex) over lines of text."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()
