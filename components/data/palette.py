"""The colours that images are quantised to where a token is a pixel (iGPT: Chen et al. 2020, section 3.1)."""

import numpy as np

SAMPLE = 200_000  # pixels that k-means sees
BLOCK = 1 << 22  # pixels looked at together


def fit_palette(images: np.ndarray, colours: int, seed: int) -> np.ndarray:
    """Palette of uint8 images (N, H, W, C) with C = 1 or 3: uint8 (K, C), K ≤ colours, distinct, sorted.

    Holds exactly the colours that occur where they are no more than `colours`, otherwise the rounded centres of k-means
    in mini-batches (Sculley 2010) on a random sample of pixels.
    """
    pixels = images.reshape(-1, images.shape[-1])  # (P, C)
    exact = _distinct(pixels)
    if len(exact) <= colours:
        return exact
    from sklearn.cluster import MiniBatchKMeans

    chosen = np.random.default_rng(seed).choice(len(pixels), size=min(SAMPLE, len(pixels)), replace=False)
    sample = pixels[np.sort(chosen)].astype(np.float32)
    kmeans = MiniBatchKMeans(n_clusters=colours, batch_size=8192, n_init=1, random_state=seed).fit(sample)
    return np.unique(np.rint(kmeans.cluster_centers_).clip(0, 255).astype(np.uint8), axis=0)


def _distinct(pixels: np.ndarray) -> np.ndarray:
    """Distinct rows of uint8 (P, C), sorted: a pixel is a number in base 256, ticked off in a table of all of them."""
    channels = pixels.shape[1]
    seen = np.zeros(256**channels, dtype=bool)
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK].astype(np.int64)
        seen[block @ 256 ** np.arange(channels - 1, -1, -1)] = True
    codes = np.flatnonzero(seen)
    return np.stack([codes // 256**c % 256 for c in range(channels - 1, -1, -1)], axis=1).astype(np.uint8)
