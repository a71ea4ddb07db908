"""All decoded images of a run in one place: pixels on disk, what is known of each in memory."""

import hashlib
from typing import IO, NamedTuple

import numpy as np


class Picture(NamedTuple):
    """An image that can be used, as it was decoded."""

    pixels: np.ndarray  # uint8 (image_size, image_size, channels)
    converted: tuple[str, ...]  # in words, besides turning, cropping and resizing
    finer: np.ndarray | None = None  # the same image with more pixels, where they are asked for


class Spool:
    """Images of one size in a file, by their numbers.

    The file is written with ordinary writes, never through a memory map: on a full disk a write raises OSError, while a
    map would kill the process.
    """

    def __init__(self, file: IO[bytes], size: int, channels: int) -> None:
        self.shape = (size, size, channels)
        self._file = file
        self._count = 0

    def add(self, pixels: bytes) -> int:
        """Append an image, uint8 (H, W, C); returns its number."""
        self._file.write(pixels)
        self._count += 1
        return self._count - 1

    def images(self, numbers: np.ndarray) -> np.ndarray:
        """Copies of these images: uint8 (len(numbers), H, W, C)."""
        if len(numbers) == 0:
            return np.empty((0, *self.shape), dtype=np.uint8)
        self._file.flush()
        images = np.memmap(self._file, dtype=np.uint8, mode="r", shape=(self._count, *self.shape))
        return np.asarray(images[numbers])


class ImagePool:
    """Images as they are decoded; a row number names an image from then on.

    Some may be there twice: in `image_size` as all are, and in `finer`, a spool of larger images.
    """

    def __init__(self, spool: Spool, finer: Spool | None = None) -> None:
        self.shape = spool.shape
        self.sha256: list[str] = []  # of the pixels, so that two files with the same picture are found
        self.source: list[str] = []
        self.path: list[str] = []
        self.class_name: list[str] = []  # "" where there is none
        self.converted: list[str] = []  # how it became grey or RGB of 8 bits; "" where it was
        self._spool = spool
        self.finer = finer
        self._finer_numbers: dict[int, int] = {}  # by row

    def add(
        self,
        image: np.ndarray,
        source: str,
        path: str,
        class_name: str,
        converted: str = "",
        finer: np.ndarray | None = None,
    ) -> int:
        """Append a uint8 image (H, W, C), and the same one with more pixels where there is one; returns its row."""
        pixels = image.tobytes()
        row = self._spool.add(pixels)
        if finer is not None and self.finer is not None:
            self._finer_numbers[row] = self.finer.add(finer.tobytes())
        self.sha256.append(hashlib.sha256(pixels).hexdigest())
        self.source.append(source)
        self.path.append(path)
        self.class_name.append(class_name)
        self.converted.append(converted)
        return row

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Copies of the images of these rows: uint8 (len(rows), H, W, C)."""
        return self._spool.images(rows)

    def finer_images(self, rows: np.ndarray) -> np.ndarray:
        """The same with more pixels; for rows that were added with them."""
        assert self.finer is not None
        return self.finer.images(np.array([self._finer_numbers[row] for row in rows.tolist()], dtype=np.int64))
