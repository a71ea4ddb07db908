from collections.abc import Callable

import numpy as np
import pytest

from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.probes.linear_probe import Labelled, LinearProbe

CLASSES, WIDTH = 3, 4


def features_of(n: int, seed: int) -> Labelled:
    """Three classes with their own means and one full covariance, features (N, 4)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    mixing = np.eye(WIDTH) + 0.3 * np.random.default_rng(99).normal(size=(WIDTH, WIDTH))
    means = 8 * np.eye(CLASSES, WIDTH)
    return Labelled((rng.normal(size=(n, WIDTH)) @ mixing + means[labels] + 10).astype(np.float32), labels)


def batch_of(features: np.ndarray, bits: np.ndarray | None = None) -> Batch:
    return Batch(features, np.zeros((len(features), 8, 8, 1), np.uint8), bits)


@pytest.fixture(scope="session")
def make_features() -> Callable[[int, int], Labelled]:
    return features_of


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    return batch_of


@pytest.fixture(scope="session")
def fitting_data() -> InDistribution:
    """60,000 training features, 300 validation features and a probe that knows nothing of them; no likelihood."""
    rng = np.random.default_rng(0)
    probe = LinearProbe(rng.normal(size=(CLASSES, WIDTH)), rng.normal(size=CLASSES), temperature=2.0, l2=0.1)
    return InDistribution(features_of(60_000, 0), batch_of(features_of(300, 1).features), probe)


@pytest.fixture(scope="session")
def queries() -> np.ndarray:
    """Usual features and strange ones, (100, 4)."""
    return np.concatenate([features_of(50, 2).features, features_of(50, 3).features * 1.5])
