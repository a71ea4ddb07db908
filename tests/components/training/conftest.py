import numpy as np
import pytest


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
