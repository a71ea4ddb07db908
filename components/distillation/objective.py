"""What a student's losses need beside the student: heads, buffers, the teacher's probe."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from components.distillation.config import StudentConfig
from components.distillation.crd import Crd, draw_negatives
from components.distillation.losses import feature_regression, soft_targets


class Probe(NamedTuple):
    """A linear classifier on the teacher's features."""

    weight: np.ndarray  # (K, D)
    bias: np.ndarray  # (K,)


class Objective(nn.Module):
    """The student's losses, with all that is trained for them and thrown away afterwards.

    Args:
        student, teacher: lengths of their features.
        images: the size of the training set.
        probe: the teacher's; for soft targets alone.
    """

    probe_weight: Tensor
    probe_bias: Tensor

    def __init__(self, config: StudentConfig, student: int, teacher: int, images: int, probe: Probe | None) -> None:
        super().__init__()
        self.config, self.images = config, images
        self.crd = Crd(student, teacher, images, config.crd) if config.crd else None
        self.regressor = nn.Linear(student, teacher) if config.regression else None
        self.classifier: nn.Linear | None = None
        if config.kd:
            assert probe is not None, "soft targets are a probe's"
            self.classifier = nn.Linear(student, len(probe.bias))
            for name, values in (("probe_weight", probe.weight), ("probe_bias", probe.bias)):
                self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)

    def forward(
        self, student: Tensor, teacher: Tensor, images: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Each loss by its name, unweighted.

        Args:
            student, teacher: features (B, D_s) and (B, D_t) of the same views.
            images: (B,) numbers of the images in the training set.
            generator: what negatives are drawn with.
        """
        losses = {}
        if self.crd is not None:
            negatives = draw_negatives(images, self.crd.negatives, self.images, generator)
            losses["crd"] = self.crd(student, teacher, images, negatives)
        if self.config.kd and self.classifier is not None:
            targets = teacher @ self.probe_weight.T + self.probe_bias  # (B, K)
            losses["kd"] = soft_targets(self.classifier(student), targets, self.config.kd.temperature)
        if self.regressor is not None:
            losses["regression"] = feature_regression(self.regressor(student), teacher)
        return losses

    def remember(self) -> None:
        """Let what the losses remember of the images take in the batch; to be called after its backward pass."""
        if self.crd is not None:
            self.crd.remember()


def build_objective(
    config: StudentConfig, student: int, teacher: int, images: int, probe: Probe | None, seed: int
) -> Objective:
    """A freshly initialised objective; the same seed gives the same weights, whatever else the process has drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Objective(config, student, teacher, images, probe)
