import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Distinct random images: noise(7, 16) is uint8 (16, 16, 3), always the same one."""

    def make(seed: int, size: int = 8, channels: int = 3) -> np.ndarray:
        shape = (size, size, channels) if channels > 1 else (size, size)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture
def image_folder(tmp_path: Path, noise: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Make a folder of PNG noise: image_folder("set", cat=5, dog=5), or image_folder("set", 5) without classes."""

    def make(name: str, count: int = 0, size: int = 8, first_seed: int = 0, **classes: int) -> Path:
        seed = first_seed
        for class_name, images in {"": count, **classes}.items():
            folder = tmp_path / name / class_name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(images):
                Image.fromarray(noise(seed, size)).save(folder / f"{i:03}.png")
                seed += 1
        return tmp_path / name

    return make


@pytest.fixture
def image_sets() -> Path:
    """A folder with CIFAR-10 and others as Parquet files in Hugging Face's layout, where there is one."""
    folder = os.environ.get("GCRL_IMAGE_SETS")
    if not folder or not (Path(folder) / "cifar10-test.parquet").is_file():
        pytest.skip("set GCRL_IMAGE_SETS to a folder that holds cifar10-test.parquet to run on real images")
    return Path(folder)
