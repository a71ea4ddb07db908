"""A map of the features: test images and OOD sets in two dimensions."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.evaluation.probes.neighbours import unit_length
from components.files import atomic_file, read_arrays

TEST_IMAGES, OOD_IMAGES = 300, 300  # at most; the latter of all OOD sets together
PERPLEXITY, ITERATIONS = 30, 500


class Mapped(NamedTuple):
    """Some images of a split, and where they lie."""

    rows: np.ndarray  # (n,) of the split, ascending
    positions: np.ndarray  # (n, 2)


def embedding_map(features: Mapping[str, np.ndarray], seed: int) -> dict[str, Mapped]:
    """t-SNE of a random choice of images (van der Maaten & Hinton 2008, https://jmlr.org/papers/v9/vandermaaten08a.html).

    `features`: `test` and each OOD set → (N, D). Compared by cosine similarity, as the k-NN probe does. The map is a
    picture: neighbours in it are neighbours in the features, while distances and sizes of groups mean little.
    """
    rng = np.random.default_rng(seed)
    share = OOD_IMAGES // max(len(features) - 1, 1)
    rows = {
        name: np.sort(rng.permutation(len(values))[: TEST_IMAGES if name == "test" else share])
        for name, values in features.items()
    }
    points = unit_length(np.concatenate([features[name][chosen] for name, chosen in rows.items()]))  # (n, D)
    ends = np.cumsum([len(chosen) for chosen in rows.values()])[:-1]
    parts = np.split(_positions(points, seed), ends)
    return {name: Mapped(chosen, part) for (name, chosen), part in zip(rows.items(), parts, strict=True)}


def save_map(path: Path | str, places: Mapping[str, Mapped], labels: np.ndarray) -> None:
    """Write what `embedding_map` found, and the labels (N,) of the whole test split."""
    arrays = {f"{name}/{key}": array for name, at in places.items() for key, array in at._asdict().items()}
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, labels=labels, **arrays)


def load_map(path: Path | str) -> tuple[dict[str, Mapped], np.ndarray]:
    """What `save_map` wrote."""
    kept = read_arrays(path)
    names = [key.removesuffix("/rows") for key in kept if key.endswith("/rows")]
    return {name: Mapped(kept[f"{name}/rows"], kept[f"{name}/positions"]) for name in names}, kept["labels"]


def _positions(points: np.ndarray, seed: int) -> np.ndarray:
    if not np.ptp(points, axis=0).any():  # collapsed features are one point, which t-SNE cannot scale
        return np.zeros((len(points), 2))
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, max(1, (len(points) - 1) // 3))
    with threadpool_limits(1):  # sums over threads differ in the last digit, which t-SNE amplifies
        return TSNE(perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed).fit_transform(points)
