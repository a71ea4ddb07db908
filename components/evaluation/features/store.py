"""Features and likelihoods of every split, as the embed stage leaves them: all that evaluation knows of a model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.errors import UserError
from components.evaluation.config import Corruption, Severity
from components.files import atomic_file, read_array

# folders inside of that of the splits: features of corrupted test images; features after every block (layers.py)
CORRUPTED, LAYERS = "corrupted", "layers"


@dataclass(frozen=True)
class Embedded:
    """A folder of `<split>.features.npy` and, for variants with a likelihood, `<split>.bits_per_dim.npy` and
    `<split>.bits_without_context.npy`."""

    folder: Path

    @classmethod
    def open(cls, folder: Path | str) -> "Embedded":
        """Raises UserError where the folder is missing or holds no features."""
        folder = Path(folder)
        if not any(folder.glob("*.features.npy")):
            raise UserError(
                f"{folder}: no <split>.features.npy here. The embed stage writes them: run `dvc repro` first."
            )
        return cls(folder)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the embedded splits, in alphabetical order."""
        return tuple(sorted(path.name.removesuffix(".features.npy") for path in self.folder.glob("*.features.npy")))

    def features(self, split: str) -> np.ndarray:
        """Features of a split, float32 (N, D), memory-mapped. Raises UserError where the split was not embedded."""
        path = _path(self.folder, split, "features")
        if not path.exists():
            raise UserError(
                f"{path}: not found, the embedded splits are {', '.join(self.splits)}. "
                "The embed stage writes one file a split: run it again."
            )
        return read_array(path, "float32", 2, mapped=True)

    def bits_per_dim(self, split: str) -> np.ndarray | None:
        """Negative log-likelihoods in bits per dimension, float64 (N,), or None for a variant without a likelihood."""
        return self._likelihoods(split, "bits_per_dim")

    def bits_without_context(self, split: str) -> np.ndarray | None:
        """The same without context (context_likelihood.py), float64 (N,); None for a variant without a likelihood."""
        return self._likelihoods(split, "bits_without_context")

    def _likelihoods(self, split: str, kind: str) -> np.ndarray | None:
        path = _path(self.folder, split, kind)
        if not path.exists():
            return None
        bits = read_array(path, "float64", 1)
        if len(bits) != len(self.features(split)):
            raise UserError(
                f"{path}: {len(bits)} likelihoods for {len(self.features(split))} features. Run the embed stage again."
            )
        return bits


def write_features(
    folder: Path | str,
    split: str,
    features: np.ndarray,
    bits_per_dim: np.ndarray | None,
    bits_without_context: np.ndarray | None = None,
) -> None:
    """Write what `Embedded` reads: features (N, D) as float32, likelihoods (N,) as float64 or nothing.

    Raises UserError where a value is NaN or infinite: every later number would be void.
    """
    folder = Path(folder)
    likelihoods = {"bits_per_dim": bits_per_dim, "bits_without_context": bits_without_context}
    for kind, values in {"features": features, **likelihoods}.items():
        if values is not None and not np.isfinite(values).all():
            raise UserError(
                f"{folder}: the {kind.replace('_', ' ')} of split {split!r} hold NaN or infinite values. "
                "The encoder's weights are broken or training diverged: train again with a lower learning rate."
            )
    _save(_path(folder, split, "features"), np.asarray(features, np.float32))
    for kind, values in likelihoods.items():
        if values is None:
            _path(folder, split, kind).unlink(missing_ok=True)
        else:
            _save(_path(folder, split, kind), np.asarray(values, np.float64))


def corrupted_split(corruption: Corruption, severity: Severity) -> str:
    """The name under which the features of corrupted images are kept."""
    return f"{corruption}-{severity}"


def evenly_spread(total: int, count: int) -> np.ndarray:
    """`count` row numbers below `total` at equal distances, ascending from 0; all of them where they are fewer.

    Spread, because a split may be sorted by class.
    """
    return np.arange(min(count, total)) * total // min(count, total)


def _save(path: Path, values: np.ndarray) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _path(folder: Path, split: str, kind: str) -> Path:
    return folder / f"{split}.{kind}.npy"
