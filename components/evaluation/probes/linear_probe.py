"""A fitted linear probe, and what it is fitted to. How it is fitted: run.py."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.files import atomic_file, read_arrays


class Labelled(NamedTuple):
    """One split: features (N, D) and class numbers (N,) from 0 to K − 1."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier on raw features: standardisation is folded into weight and bias."""

    weight: np.ndarray  # (K, D)
    bias: np.ndarray  # (K,)
    temperature: float  # probabilities = softmax(logits / temperature)
    l2: float  # the penalty that validation chose

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Uncalibrated logits, float64 (N, K), of features (N, D)."""
        return features @ self.weight.T + self.bias  # (N, K)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Calibrated class probabilities (N, K) of features (N, D)."""
        from scipy.special import softmax

        return softmax(self.logits(features) / self.temperature, axis=1)

    def save(self, path: Path | str) -> None:
        """Write the probe as an .npz file."""
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path | str) -> "LinearProbe":
        """Read what `save` wrote. Raises UserError where the file is missing or damaged."""
        file = read_arrays(path, {"weight": 2, "bias": 1, "temperature": 0, "l2": 0}, "The probe stage")
        return cls(file["weight"], file["bias"], float(file["temperature"]), float(file["l2"]))
