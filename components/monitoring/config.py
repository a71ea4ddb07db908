"""When a batch of images counts as drifted. No tensor library is imported here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DriftThresholds:
    """A test reports drift where it is significant and its effect is above the limit.

    Both are asked: a million images make every small difference significant, five make large effects by chance.
    """

    alpha: float = 0.01  # chance that a batch without drift is reported, over all tests together
    flagged_excess: float = 0.05  # share flagged as OOD, above the level that it was calibrated to
    score_distance: float = 0.15  # Kolmogorov–Smirnov distance of the OOD scores, 0 to 1
    embedding_distance: float = 0.1  # maximum mean discrepancy of the embeddings, 0 to √2
    min_images: int = 20  # fewer images, and the last two can't tell

    def __post_init__(self) -> None:
        if not 0.001 <= self.alpha <= 0.2:  # the smaller, the more permutations a p-value takes
            raise ValueError(f"alpha must lie between 0.001 and 0.2, not {self.alpha:g}")
        for name in ("flagged_excess", "score_distance"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name):g}")
        if not 0 <= self.embedding_distance < 2**0.5:
            raise ValueError(f"embedding_distance must lie between 0 and √2, not {self.embedding_distance:g}")
        if self.min_images < 2:
            raise ValueError(f"min_images must be at least 2, not {self.min_images}")
