"""Runs of twelve steps on the stripes, and what tests compare of them."""

import numpy as np

from components.data.config import AugmentationConfig
from components.objectives.config import VariantConfig
from components.training.checkpoint import History
from components.training.config import TrainingConfig
from components.training.validation import PretrainData

AUGMENTATION = AugmentationConfig(crop_min_side=0.8, translate=0.1, brightness=0.2, contrast=0.2)
CONFIG = TrainingConfig(
    steps=12, batch_size=16, learning_rate=0.1, warmup_steps=2, device="cpu", precision="float32", log_every=2,
    evaluate_every=3, diagnose_every=4, checkpoint_seconds=0,
)  # fmt: skip
HYBRID = VariantConfig(1, 1)
TIMING = {"seconds", "images_per_second"}


def data_of(images: np.ndarray, labels: np.ndarray) -> PretrainData:
    return PretrainData(images, (images, labels), (images[:40], labels[:40]), labels)


def without_timing(history: History) -> History:
    return [{name: value for name, value in row.items() if name not in TIMING} for row in history]
