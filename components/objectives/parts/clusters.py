"""K-means, as the objectives use it that learn from clusters."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch

from components.errors import UserError
from components.model.gcrl import GCRL
from components.model.tokens import to_unit
from components.objectives.base import features

BLOCK = 512  # rows that are encoded at a time
FITTED = 256  # rows a cluster that k-means is fitted to at most, as in Faiss


def cluster(
    rows: np.ndarray, encode: Callable[[np.ndarray], np.ndarray], clusters: int, seed: int, pca_components: int | None
) -> np.ndarray:
    """The cluster of each row, 0 … clusters − 1, int64 (N,).

    What is clustered is reduced to so many whitened principal components (None: left as it is) and L2-normalised (Caron
    et al. 2018, arXiv 1807.05520, section 3.3). No more than a block of rows is held encoded beside those that k-means
    is fitted to. The same rows and seed give the same clusters, bit for bit: threads would add up in any order.

    Args:
        rows: (N, ...), perhaps memory-mapped.
        encode: what is clustered (n, D) of some rows (n, ...).

    Raises:
        UserError: what is clustered is not finite.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer
    from threadpoolctl import threadpool_limits

    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[: FITTED * clusters])
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some stay empty
        sample = np.concatenate([_finite(encode(rows[block])) for block in _blocks(chosen)])
        reduced = PCA(min(pca_components, *sample.shape), whiten=True) if pca_components else "passthrough"
        fitted = make_pipeline(reduced, Normalizer(), KMeans(clusters, n_init=1, random_state=seed)).fit(sample)
        if len(sample) == len(rows):
            return np.asarray(fitted.predict(sample), np.int64)
        everything = np.arange(len(rows))
        found = [fitted.predict(_finite(encode(rows[block]))) for block in _blocks(everything)]
        return np.concatenate(found, dtype=np.int64)


def _blocks(indices: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), BLOCK):
        yield indices[start : start + BLOCK]


def _finite(encoded: np.ndarray) -> np.ndarray:
    if not np.isfinite(encoded).all():
        raise UserError(
            "the features that are to be clustered are not finite: training has diverged. "
            "Lower training.learning_rate, lengthen training.warmup_steps or set training.precision: float32."
        )
    return encoded


def encoder_of(model: GCRL) -> Callable[[np.ndarray], np.ndarray]:
    """The function from images uint8 (n, H, W, C), not augmented, to the encoder's features float32 (n, D)."""

    @torch.no_grad()
    def encode(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(images)).to(model.start.device)
        return features(model, model.tokenizer(to_unit(pixels))).cpu().numpy()

    return encode
