"""All decoded images of a run in one place: pixels on disk, what is known of each in memory."""

import hashlib
from typing import IO

import numpy as np


class ImagePool:
    """Images of one size, spooled to a file as they are decoded; a row number names an image from then on.

    The file is written with ordinary writes, never through a memory map: on a full disk a write raises OSError, while a
    map would kill the process.
    """

    def __init__(self, spool: IO[bytes], image_size: int, channels: int) -> None:
        self.shape = (image_size, image_size, channels)
        self.sha256: list[str] = []  # of the pixels, so that two files with the same picture are found
        self.source: list[str] = []
        self.path: list[str] = []
        self.class_name: list[str] = []  # "" where there is none
        self.converted: list[str] = []  # how it became grey or RGB of 8 bits; "" where it was
        self._spool = spool

    def add(self, image: np.ndarray, source: str, path: str, class_name: str, converted: str = "") -> int:
        """Append a uint8 image (H, W, C); returns its row."""
        pixels = image.tobytes()
        self._spool.write(pixels)
        self.sha256.append(hashlib.sha256(pixels).hexdigest())
        self.source.append(source)
        self.path.append(path)
        self.class_name.append(class_name)
        self.converted.append(converted)
        return len(self.sha256) - 1

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Copies of the images of these rows: uint8 (len(rows), H, W, C)."""
        if len(rows) == 0:
            return np.empty((0, *self.shape), dtype=np.uint8)
        self._spool.flush()
        pool = np.memmap(self._spool, dtype=np.uint8, mode="r", shape=(len(self.sha256), *self.shape))
        return np.asarray(pool[rows])
