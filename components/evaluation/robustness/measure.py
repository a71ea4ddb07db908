"""What corruptions do to a model: accuracy, calibration and OOD score at each kind and severity.

Probe, detector and threshold were fitted to clean images. A model that knows when it doesn't know flags more as its
accuracy falls.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.evaluation import csv_table
from components.evaluation.config import Corruption, EmbedConfig, Severity
from components.evaluation.features.store import Embedded, corrupted_split, evenly_spread
from components.evaluation.ood.base import Batch, FittedDetector
from components.evaluation.probes.calibration import reliability
from components.evaluation.probes.linear_probe import LinearProbe

MEASURES = ("accuracy", "ece", "ood_score", "flagged")
CALIBRATION_BINS = 15

Corrupted = Mapping[Corruption, Mapping[Severity, Batch]]


def open_corrupted(test: Embedded, corrupted: Embedded, config: EmbedConfig) -> tuple[np.ndarray, Batch, Corrupted]:
    """Rows of the test split (N,) that were corrupted, the clean images' batch, and those of the corrupted ones.

    `config` is the one that they were embedded with. Features stay memory-mapped.
    """
    features, bits = test.features("test"), test.bits_per_dim("test")
    rows = evenly_spread(len(features), config.corrupted_images)

    def batch(corruption: Corruption, severity: Severity) -> Batch:
        split = corrupted_split(corruption, severity)
        return Batch(corrupted.features(split), None, corrupted.bits_per_dim(split))

    batches = {kind: {level: batch(kind, level) for level in config.severities} for kind in config.corruptions}
    return rows, Batch(features[rows], None, None if bits is None else bits[rows]), batches


def measure_robustness(
    clean: Batch,
    corrupted: Corrupted,
    labels: np.ndarray,
    probe: LinearProbe,
    detector: FittedDetector,
    threshold: float,
) -> dict[str, float]:
    """Read clean images and their corrupted copies, (N,) with `labels`, with a probe and a detector.

    Metrics are named CORRUPTION/SEVERITY/MEASURE: accuracy, ece (calibration error of the probe's calibrated
    probabilities), ood_score (the detector's mean) and flagged (the share whose score is above `threshold`).
    CORRUPTION/mean is the mean over severities, mean that over corruptions; clean are the images as they are.
    relative_accuracy is mean/accuracy as a share of clean/accuracy, 0 where that is 0.
    """

    def measure(batch: Batch) -> dict[str, float]:
        probabilities = probe.probabilities(batch.features)  # (N, K)
        scores = detector.score(batch)  # (N,)
        return {
            "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
            "ece": reliability(probabilities, labels, CALIBRATION_BINS).expected_calibration_error,
            "ood_score": float(scores.mean()),
            "flagged": float((scores > threshold).mean()),
        }

    metrics = {f"clean/{name}": value for name, value in measure(clean).items()}
    for corruption, of_severity in corrupted.items():
        measured = {severity: measure(batch) for severity, batch in of_severity.items()}
        for severity, numbers in measured.items():
            metrics |= {f"{corruption}/{severity}/{name}": value for name, value in numbers.items()}
        for name in MEASURES:
            metrics[f"{corruption}/mean/{name}"] = float(np.mean([numbers[name] for numbers in measured.values()]))
    for name in MEASURES:
        metrics[f"mean/{name}"] = float(np.mean([metrics[f"{corruption}/mean/{name}"] for corruption in corrupted]))
    clean_accuracy = metrics["clean/accuracy"]
    metrics["relative_accuracy"] = metrics["mean/accuracy"] / clean_accuracy if clean_accuracy else 0.0
    return metrics


def write_csv(
    metrics: Mapping[str, float], corruptions: Sequence[str], severities: Sequence[int], path: Path | str
) -> None:
    """One row a corruption and severity, the clean images first: `corruption,severity` and MEASURES.

    `metrics`: what `measure_robustness` returned for these corruptions and severities.
    """
    rows = [("clean", 0, "clean")]
    rows += [(kind, severity, f"{kind}/{severity}") for kind in corruptions for severity in sorted(severities)]
    csv_table.write_csv(
        path,
        ("corruption", "severity", *MEASURES),
        ((kind, severity, *(metrics[f"{place}/{name}"] for name in MEASURES)) for kind, severity, place in rows),
    )
