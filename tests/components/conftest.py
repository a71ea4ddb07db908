from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("without deadlines", deadline=None)  # a busy machine is no failure
settings.load_profile("without deadlines")


def a_palette(colours: int, channels: int) -> np.ndarray:
    """Distinct sorted colours uint8 (K, C): evenly spaced grey levels, or RGB noise."""
    if channels == 1:
        return np.linspace(0, 255, colours).round().astype(np.uint8)[:, None]
    drawn = np.random.default_rng(0).integers(0, 256, (4 * colours, 3), dtype=np.uint8)
    return np.unique(drawn, axis=0)[:colours]


@pytest.fixture
def make_palette() -> Callable[[int, int], np.ndarray]:
    return a_palette


@pytest.fixture(scope="session")
def make_model() -> Iterator[Callable[..., Any]]:
    """Tiny models with every parameter moved at random: a fresh model predicts uniformly, which would hide mistakes.

    make_model(patch_size=2, image_size=4, colours=3, w_con=0) is a GCRL in evaluation mode; `fresh=True` leaves it as
    initialised, `generative` is a term's configuration, further keywords (likelihood="categorical") go to ModelConfig.
    Torch gets one thread: at this size several wait for each other, and on a busy machine ten times longer than they
    compute.
    """
    import torch

    from components.model.build import Architecture, build
    from components.model.config import ModelConfig
    from components.objectives.config import VariantConfig
    from components.objectives.generative.autoregressive import AutoregressiveConfig

    def make(
        patch_size: int = 1,
        image_size: int = 2,
        colours: int = 3,
        channels: int = 1,
        w_gen: float = 1.0,
        w_con: float = 1.0,
        condition_on_augmentation: bool = True,
        generative: Any = None,
        seed: int = 0,
        fresh: bool = False,
        **shape: Any,
    ) -> Any:
        small = {"width": 16, "heads": 2, "encoder_layers": 2, "decoder_layers": 2, "local_width": 8}
        config = ModelConfig(patch_size, **{**small, "projection_width": 16, "projection_size": 8, **shape})
        generative = generative or AutoregressiveConfig(condition_on_augmentation=condition_on_augmentation)
        variant = VariantConfig(w_gen, w_con, generative=generative)
        palette = a_palette(colours, channels)
        model = build(Architecture.of(config, variant, image_size, palette), palette, seed)
        if not fresh:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.4 * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def stripes() -> tuple[np.ndarray, np.ndarray]:
    """Images that have something to learn: 96 pairs of stripes, uint8 (96, 8, 8, 1), of four directions (96,)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8]
    labels = np.arange(96) % 4
    across = np.stack([x, y, x + y, x - y])[labels]  # (96, 8, 8)
    waves = np.sin(across * np.pi / 2 + rng.uniform(0, 2 * np.pi, (96, 1, 1)))
    images = (waves > 0) * 255.0 * rng.uniform(0.5, 1, (96, 1, 1))
    return images.round().astype(np.uint8)[..., None], labels


@pytest.fixture(scope="session")
def coloured_stripes(stripes) -> tuple[np.ndarray, np.ndarray]:
    """The same, each in a colour of its own, uint8 (96, 8, 8, 3), for terms that want colours."""
    images, labels = stripes
    colours = np.random.default_rng(1).uniform(0.2, 1, (len(images), 1, 1, 3))
    return (images * colours).round().astype(np.uint8), labels
