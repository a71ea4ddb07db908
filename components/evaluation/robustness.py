"""What corruptions do to a model: accuracy, calibration and OOD score at each kind and severity."""

from collections.abc import Callable, Sequence

import numpy as np

from components.evaluation.calibration import reliability
from components.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Corruption, corrupt
from components.evaluation.detectors import Batch, Detector
from components.evaluation.probes import LinearProbe

MEASURES = ("accuracy", "ece", "ood_score")

# uint8 images (N, H, W, C) → features (N, D) and bits per dimension (N,), or None for a variant without a likelihood
Encode = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def measure_robustness(
    encode: Encode,
    images: np.ndarray,
    labels: np.ndarray,
    probe: LinearProbe,
    detector: Detector,
    seed: int,
    bins: int = 15,
    corruptions: Sequence[Corruption] = tuple(CORRUPTIONS),
) -> dict[str, float]:
    """Encode corrupted copies of test images and read them with a probe and a detector that were fitted to clean ones.

    `images` are uint8 (N, H, W, C), `labels` (N,). Metrics are named CORRUPTION/SEVERITY/MEASURE: accuracy, ece
    (calibration error of the probe's calibrated probabilities) and ood_score (the detector's mean). CORRUPTION/mean is
    the mean over severities, mean that over corruptions; clean are the images as they are. One copy is held at a time.
    """

    def measure(changed: np.ndarray) -> dict[str, float]:
        features, bits = encode(changed)
        probabilities = probe.probabilities(features)  # (N, K)
        return {
            "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
            "ece": reliability(probabilities, labels, bins).expected_calibration_error,
            "ood_score": float(detector.score(Batch(features, changed, bits)).mean()),
        }

    metrics = {f"clean/{name}": value for name, value in measure(images).items()}
    for corruption in corruptions:
        for severity in SEVERITIES:
            measured = measure(corrupt(images, corruption, severity, seed))
            metrics |= {f"{corruption}/{severity}/{name}": value for name, value in measured.items()}
        for name in MEASURES:
            of_severity = [metrics[f"{corruption}/{severity}/{name}"] for severity in SEVERITIES]
            metrics[f"{corruption}/mean/{name}"] = float(np.mean(of_severity))
    for name in MEASURES:
        metrics[f"mean/{name}"] = float(np.mean([metrics[f"{corruption}/mean/{name}"] for corruption in corruptions]))
    return metrics
