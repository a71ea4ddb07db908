"""Where images come from: builtin sets, folders, Parquet files and torchvision's named sets."""

from pathlib import Path
from typing import Any

import numpy as np

from components.data.config import Source
from components.data.sources.file_kinds import shown
from components.data.sources.image_files import folder_images, parquet_files
from components.data.sources.listing import Listing, unique_names
from components.data.sources.parquet import list_parquet
from components.errors import UserError

TORCHVISION_SPLITS = {
    "CIFAR10": ("train", "test"),
    "CIFAR100": ("train", "test"),
    "MNIST": ("train", "test"),
    "FashionMNIST": ("train", "test"),
    "SVHN": ("train", "test", "extra"),
    "STL10": ("train", "test", "unlabeled", "train+unlabeled"),
}


def open_source(source: Source, key: str, image_size: int, labelled: bool = False) -> Listing:
    """List the images of a source.

    `key` is its place in params.yaml, for messages. Where `labelled`, the labels are going to be used: a source without
    them and labels out of range raise a UserError; elsewhere labels that can't be understood count as missing.
    """
    if source.builtin == "digits":
        listing = _digits()
    elif source.builtin == "photo-patches":
        listing = _photo_patches(image_size)
    elif source.folder is not None:
        listing = _folder(Path(source.folder), f"{key}.folder", labelled)
    elif source.parquet is not None:
        files = parquet_files(source.parquet, f"{key}.parquet")
        listing = list_parquet(files, f"{key}.parquet", labelled)
    else:
        listing = _torchvision(source, f"{key}.torchvision")
    if labelled and not listing.has_labels:
        raise UserError(
            f"{key}: {listing.name} has no labels. Give labels (one sub-folder a class, or a column `label`), "
            "or use these images as data.pretrain and name a labelled set as data.labelled."
        )
    return listing


def _array_listing(name: str, images: Any, labels: np.ndarray | None, classes: tuple[str, ...]) -> Listing:
    return Listing(
        name=name,
        paths=[f"{name}#{i}" for i in range(len(images))],
        labels=labels,
        classes=classes,
        read=lambda rows: (np.asarray(images[i]) for i in rows),
    )


def _digits() -> Listing:
    """scikit-learn's 1,797 handwritten digits, 8×8; their grey levels 0…16 become 0…255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8)
    return _array_listing("digits", images, digits.target.astype(np.int64), tuple(str(i) for i in range(10)))


def _photo_patches(size: int) -> Listing:
    """Every size×size tile of scikit-learn's two photographs (China's Summer Palace and a flower, 427×640)."""
    from sklearn.datasets import load_sample_images

    tiles = []
    for photo in load_sample_images().images:
        rows, columns = photo.shape[0] // size, photo.shape[1] // size
        grid = photo[: rows * size, : columns * size].reshape(rows, size, columns, size, 3)
        tiles.append(grid.swapaxes(1, 2).reshape(-1, size, size, 3))
    return _array_listing("photo-patches", np.concatenate(tiles), None, ())


def _folder(folder: Path, key: str, labelled: bool) -> Listing:
    """One sub-folder a class, searched to any depth, or images without a class."""
    found = folder_images(folder, key, labelled)
    return Listing(
        name=shown(str(folder)),
        paths=[shown(path) for path in found.paths],
        labels=np.array(found.labels, dtype=np.int64) if found.classes else None,
        classes=found.classes,
        read=lambda rows: (Path(found.paths[i]) for i in rows),
        others=found.others,
    )


def _torchvision(source: Source, key: str) -> Listing:
    """One of torchvision's named sets, downloaded and checked by torchvision's own code."""
    name, split = str(source.torchvision), source.split or "train"
    if split not in TORCHVISION_SPLITS[name]:
        raise UserError(f"{key}: {name} has no split {split!r}, only {', '.join(TORCHVISION_SPLITS[name])}.")
    from torchvision import datasets

    which: dict[str, Any] = {"split": split} if name in ("SVHN", "STL10") else {"train": split == "train"}
    try:
        dataset = getattr(datasets, name)(source.root, download=source.download, **which)
    except Exception as error:  # network, checksum, archive and pickle errors have no common type
        raise UserError(
            f"{key}: {name} could not be {'downloaded to or ' if source.download else ''}read from {source.root} "
            f"({error}). Without internet access put torchvision's archive there, or use a folder or parquet source."
        ) from error
    labels = np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels, dtype=np.int64)
    classes = getattr(dataset, "classes", None) or [str(i) for i in range(10)]  # SVHN names none: the digits
    images = _Pixels(dataset)
    return _array_listing(f"{name}-{split}", images, labels, unique_names(classes))


class _Pixels:
    """The images of a torchvision set by index, without their labels."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index][0]
