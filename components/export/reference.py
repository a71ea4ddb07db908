"""What later batches are compared with: the exported model's own answers on images that it knows the kind of."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import UserError
from components.export.session import open_session, run_session
from components.files import atomic_file, read_arrays

FILE = "reference.npz"
EMBEDDINGS = 1000  # kept at most
BATCH = 256


@dataclass(frozen=True)
class Reference:
    """An exported model's answers on the in-distribution validation images, and what else a scorer must know.

    Validation, because the threshold was calibrated there; the encoder has fitted its training images, whose scores
    would be too good.
    """

    classes: np.ndarray  # (K,) names, in the order of the model's probabilities
    reading: np.ndarray  # (): JSON, the arguments of `decode.decode` with which the training images were made
    false_alarm_rate: np.ndarray  # (): the share of in-distribution images that the threshold was set to flag
    threshold: np.ndarray  # (): is_ood means a higher ood_score
    embedding: np.ndarray  # float32 (E, D), a random choice
    ood_score: np.ndarray  # float32 (N,)
    is_ood: np.ndarray  # bool (N,)
    predicted: np.ndarray  # int64 (N,)
    mean: np.ndarray  # (N, C) of each image's pixels, 0 to 255
    std: np.ndarray  # (N, C)

    @classmethod
    def of(
        cls,
        model: Path,
        images: np.ndarray,
        classes: tuple[str, ...],
        reading: Mapping[str, Any],
        false_alarm_rate: float,
        threshold: float,
    ) -> "Reference":
        """Run the ONNX file over uint8 images (N, H, W, C). `reading` is `Prepared.reading`."""
        session = open_session(model)
        parts = []
        for start in range(0, len(images), BATCH):
            batch = np.array(images[start : start + BATCH])
            answers = run_session(session, batch)
            answers["predicted"] = answers.pop("probabilities").argmax(1)
            parts.append(answers | pixel_statistics(batch))
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        kept = np.random.default_rng(0).permutation(len(images))[:EMBEDDINGS]
        found["embedding"] = found["embedding"][kept]
        return cls(
            np.array(classes),
            np.array(json.dumps(dict(reading))),
            np.array(false_alarm_rate),
            np.array(threshold),
            **found,
        )

    def save(self, path: Path) -> None:
        """Write all arrays as an .npz file."""
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read what `save` wrote. Raises UserError where the file is missing, damaged or of another version."""
        try:
            return cls(**read_arrays(path))
        except (UserError, TypeError) as error:
            raise UserError(f"{path.name}: not a reference that the export stage wrote ({error})") from error


def pixel_statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """`mean` and `std` (N, C) of each channel of uint8 images (N, H, W, C)."""
    return {"mean": images.mean(axis=(1, 2)), "std": images.std(axis=(1, 2))}
