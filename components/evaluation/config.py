"""The constants that evaluation depends on. No tensor library is imported here."""

from dataclasses import dataclass
from typing import Literal

from components.evaluation.ood import registry

Corruption = Literal["gaussian_noise", "gaussian_blur", "contrast", "jpeg_compression", "pixelate"]
Severity = Literal[1, 2, 3, 4, 5]
EXPORTED = "fused"  # the detector whose score the exported model returns
SMALLEST_CORRUPTED = 8  # pixels a side


@dataclass(frozen=True)
class EmbedConfig:
    """What is embedded besides the images of every split as they are."""

    corruptions: tuple[Corruption, ...] = ()  # of test images; without any, no robustness is measured
    severities: tuple[Severity, ...] = (1, 2, 3, 4, 5)
    corrupted_images: int = 1000  # test images at most, spread evenly over the split
    # of train, val and test each, at most, but one of each class: features after every block; 0 writes none
    layer_images: int = 2000

    def __post_init__(self) -> None:
        for name in ("corruptions", "severities"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} holds a value twice")
        if not self.severities:
            raise ValueError("severities must list at least one")
        if self.corrupted_images < 1:
            raise ValueError("corrupted_images must be at least 1; for no corrupted images, leave corruptions empty")
        if self.layer_images < 0:
            raise ValueError("layer_images must not be negative")


@dataclass(frozen=True)
class ProbeConfig:
    """Probes on frozen features. Everything with several candidates is chosen on the validation split."""

    l2: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1, 1.0)  # linear probe: mean cross-entropy + l2/2 · ‖weights‖²
    k: tuple[int, ...] = (1, 5, 10, 20)  # neighbours
    shots: tuple[int, ...] = (1, 5, 10)  # labels a class
    draws: int = 5  # random draws of the few labels
    calibration_bins: int = 15

    def __post_init__(self) -> None:
        if not self.l2 or min(self.l2) <= 0:
            raise ValueError("l2 must list at least one value, all positive")
        if not self.k or min(self.k) < 1:
            raise ValueError("k must list at least one value, all at least 1")
        if self.shots and min(self.shots) < 1:
            raise ValueError("shots must all be at least 1")
        if self.draws < 1 or self.calibration_bins < 2:
            raise ValueError("draws must be at least 1 and calibration_bins at least 2")


@dataclass(frozen=True)
class OodConfig:
    """Which detectors run, and their constants."""

    detectors: tuple[str, ...] = ()  # files of ood/detectors/, or `all`; without any, those that are on by default
    k: int = 10  # neighbours of the k-NN detector
    false_alarm_rate: float = 0.05  # share of in-distribution validation images that the threshold flags
    bootstrap: int = 1000  # resamples for the confidence intervals

    def __post_init__(self) -> None:
        registry.check_names(self.detectors)
        if self.detectors and not {EXPORTED, registry.ALL} & {*self.detectors}:
            raise ValueError(f"detectors must hold `{EXPORTED}`: the exported model's ood_score is that one")
        if self.k < 1 or self.bootstrap < 1:
            raise ValueError("k and bootstrap must be at least 1")
        if not 0 < self.false_alarm_rate < 1:
            raise ValueError("false_alarm_rate must lie between 0 and 1, both exclusive")


@dataclass(frozen=True)
class CertificateConfig:
    """The PAC-Bayes certificate of an encoder: which images it is computed from, and how sure it is."""

    # whose images the bound is computed from, all of them; the encoder must owe nothing to them. The other of the two
    # confirms it.
    split: Literal["val", "test"] = "val"
    negatives: int = 1  # images that a view is told apart from; m = ⌊images / (negatives + 1)⌋
    delta: float = 0.05  # the certificate holds with probability 1 − delta
    draws: int = 5000  # heads drawn from the posterior to estimate its risk
    views: int = 8  # augmented views of each image

    def __post_init__(self) -> None:
        if self.negatives < 1 or self.draws < 1:
            raise ValueError("negatives and draws must be at least 1")
        if not 0 < self.delta < 1:
            raise ValueError("delta must lie between 0 and 1, both exclusive")
        if self.views < 2:
            raise ValueError("views must be at least 2: a view needs another of its image to be found by")
