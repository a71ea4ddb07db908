"""Run the detectors: fit on in-distribution data, set thresholds on validation data, measure on test and OOD sets."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.evaluation.config import OodConfig
from components.evaluation.ood import metrics as ood_metrics
from components.evaluation.ood import registry
from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.detectors.fused import Fused

MEASURES = ("auroc", "aupr", "fpr95")


@dataclass(frozen=True)
class OodResult:
    """Everything the detectors found out. `metrics`, `constants`, `thresholds` and `left_out` are ready for JSON."""

    metrics: dict[str, float]
    constants: dict[str, Any]
    thresholds: dict[str, float]  # detector → flag an image that scores higher
    left_out: dict[str, str]  # detector → why it could not run
    scores: dict[str, dict[str, np.ndarray]]  # detector → val, test and each OOD set → (N,)
    fused: Fused


def run_detectors(
    data: InDistribution,
    test: Batch,
    ood: Mapping[str, Batch],
    distances: Mapping[str, str],
    config: OodConfig,
    seed: int,
) -> OodResult:
    """Score `test` and the sets in `ood` with every configured detector.

    `distances` says of each OOD set whether it is near or far. Metrics are named DETECTOR/SET/MEASURE: auroc, aupr and
    fpr95 (see ood_metrics.py), each with _low and _high, its 95 % bootstrap interval, and flagged, the share above the
    threshold; DETECTOR/test/flagged is the false-alarm rate on fresh data; near, far and mean stand for
    averages over OOD sets.
    """
    metrics: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    left_out: dict[str, str] = {}
    scores: dict[str, dict[str, np.ndarray]] = {}
    detectors = registry.chosen(config.detectors)
    for name, declared in detectors.items():
        if "likelihood" in declared.needs and data.val.bits_per_dim is None:
            left_out[name] = "it needs a likelihood, and this variant has none"
            continue
        detector = declared.fit(data, config.k)
        scores[name] = {split: detector.score(batch) for split, batch in {"val": data.val, "test": test, **ood}.items()}
        thresholds[name] = threshold_at(scores[name]["val"], config.false_alarm_rate)
        metrics |= {
            f"{name}/{key}": value
            for key, value in _measure(scores[name], thresholds[name], distances, config.bootstrap, seed).items()
        }
        if isinstance(detector, Fused):
            fused = detector
    return OodResult(
        metrics=metrics,
        constants={**dataclasses.asdict(config), "detectors": list(detectors), "seed": seed},
        thresholds=thresholds,
        left_out=left_out,
        scores=scores,
        fused=fused,  # always there: the configuration insists on it
    )


def threshold_at(scores: np.ndarray, false_alarm_rate: float) -> float:
    """The threshold above which a fresh in-distribution image lies with a chance of at most `false_alarm_rate`.

    The ⌈(N + 1)(1 − rate)⌉-th smallest of the validation `scores` (N,): flagging above it is a conformal test
    (Bates et al. 2023, https://arxiv.org/abs/2104.08279, section 2). The largest where N is too small for the rate.
    """
    rank = int(np.ceil((len(scores) + 1) * (1 - false_alarm_rate)))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def _measure(
    scores: Mapping[str, np.ndarray],
    threshold: float,
    distances: Mapping[str, str],
    resamples: int,
    seed: int,
) -> dict[str, float]:
    test = scores["test"]
    metrics = {"threshold": threshold, "test/flagged": float((test > threshold).mean())}
    for name in distances:
        metrics |= {
            f"{name}/auroc": ood_metrics.auroc(test, scores[name]),
            f"{name}/aupr": ood_metrics.aupr(test, scores[name]),
            f"{name}/fpr95": ood_metrics.fpr_at_tpr(test, scores[name]),
            f"{name}/flagged": float((scores[name] > threshold).mean()),
        }
        for measure, (low, high) in ood_metrics.intervals(test, scores[name], resamples, seed).items():
            metrics |= {f"{name}/{measure}_low": low, f"{name}/{measure}_high": high}
    groups = {"near": "near", "far": "far", "mean": None}
    for group, distance in groups.items():
        members = [name for name in distances if distance in (None, distances[name])]
        if members:
            for measure in MEASURES:
                metrics[f"{group}/{measure}"] = float(np.mean([metrics[f"{name}/{measure}"] for name in members]))
    return metrics
