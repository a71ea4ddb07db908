"""What a student learns: the losses against its teacher's features, and all that these own."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from components.distillation.clusterfit import ClusterFit
from components.distillation.config import StudentConfig
from components.distillation.crd import Crd, draw_negatives
from components.distillation.losses import feature_regression, soft_targets
from components.model.gcrl import GCRL
from components.model.tokens import Tokenizer
from components.objectives.base import Batch, ContrastiveTerm, Loss, TrainingSet, feature_size
from components.objectives.objective import Objective


class Probe(NamedTuple):
    """A linear classifier on the teacher's features."""

    weight: np.ndarray  # (K, D)
    bias: np.ndarray  # (K,)


class Distillation(ContrastiveTerm[StudentConfig]):
    """The weighted sum of a student's losses, on the features of view 0.

    The teacher is observed on the very view that the student sees. Heads and buffers are trained and thrown away.

    Args:
        probe: the teacher's; None without soft targets.
    """

    observes = True
    probe_weight: Tensor
    probe_bias: Tensor

    def __init__(
        self, config: StudentConfig, teacher: GCRL, probe: Probe | None, model: GCRL, data: TrainingSet
    ) -> None:
        super().__init__(config, model, data)
        self.teacher = teacher.to(model.start.device).eval().requires_grad_(False)
        same = teacher.tokenizer.patch_size == model.tokenizer.patch_size
        self.tokenizer: Tokenizer | None = None if same else model.tokenizer
        self.images = len(data.images)
        widths = feature_size(model), feature_size(teacher)
        self.clusterfit = ClusterFit(widths[0], teacher, data.images, config.clusterfit) if config.clusterfit else None
        self.crd = Crd(*widths, self.images, config.crd) if config.crd else None
        self.regressor = nn.Linear(*widths) if config.regression else None
        self.classifier: nn.Linear | None = None
        if config.kd:
            assert probe is not None, "soft targets are a probe's"
            self.classifier = nn.Linear(widths[0], len(probe.bias))
            for name, values in (("probe_weight", probe.weight), ("probe_bias", probe.bias)):
                self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)

    def observe(self, tokens: Tensor) -> Tensor:
        """The teacher's features (n, D_t) of tokens (n, T, S, ...), cut anew where its patches have another size."""
        if self.tokenizer is not None:
            tokens = self.teacher.tokenizer(self.tokenizer.colours(tokens))
        return self.teacher.features(tokens)

    def forward(self, batch: Batch) -> Loss:
        assert batch.observed is not None
        losses = self.losses(batch.features[0], batch.observed[0], batch.images, batch.generator)
        total = torch.stack([self.config.terms[name].weight * loss for name, loss in losses.items()]).sum()
        return total, {f"{name}_loss": loss.detach() for name, loss in losses.items()}

    def losses(self, student: Tensor, teacher: Tensor, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Each loss by its name, unweighted, of features (B, D_s) and (B, D_t) of images with these numbers (B,)."""
        losses = {}
        if self.crd is not None:
            negatives = draw_negatives(images, self.crd.negatives, self.images, generator)
            losses["crd"] = self.crd(student, teacher, images, negatives)
        if self.config.kd and self.classifier is not None:
            targets = teacher @ self.probe_weight.T + self.probe_bias  # (B, K)
            losses["kd"] = soft_targets(self.classifier(student), targets, self.config.kd.temperature)
        if self.regressor is not None:
            losses["regression"] = feature_regression(self.regressor(student), teacher)
        if self.clusterfit is not None:
            losses["clusterfit"] = self.clusterfit(student, images)
        return losses

    def after_step(self, model: GCRL, progress: float) -> None:
        if self.crd is not None:
            self.crd.after_step()


def build_student_objective(
    config: StudentConfig, teacher: GCRL, probe: Probe | None, model: GCRL, data: TrainingSet, seed: int
) -> Objective:
    """Distillation alone, on one view of an image and step: the buffers of CRD hold one embedding an image.

    On the student's device; the same seed gives the same first heads and buffers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2**32)  # no run's seed: a model's weights are others
        term = Distillation(config, teacher, probe, model, data)
    return Objective(term, None, views=1, compares="distillation").to(model.start.device)
