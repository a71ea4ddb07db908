"""What a student's training is made of, told before it starts."""

import numpy as np

from components.distillation.config import StudentConfig
from components.distillation.crd import usable_negatives
from components.model.build import Architecture
from components.model.gcrl import GCRL
from components.objectives.base import ContrastiveTerm, TrainingSet
from components.objectives.objective import Objective
from components.training.config import TrainingConfig
from components.training.device import choose_device, choose_dtype, describe_hardware
from components.training.summary import flops_per_image


def describe(
    model: GCRL,
    teacher: GCRL,
    architecture: Architecture,
    student: StudentConfig,
    training: TrainingConfig,
    images: int,
) -> dict[str, str | int | float]:
    """Parameters of both, GFLOP an image of the student's own passes, its negatives, device and precision."""
    device = choose_device(training)
    blank = np.zeros((2, architecture.image_size, architecture.image_size, architecture.channels), np.uint8)
    alone = Objective(ContrastiveTerm(student, model, TrainingSet(blank)), None, views=1)  # not what its losses own
    facts: dict[str, str | int | float] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "teacher_parameters": sum(p.numel() for p in teacher.parameters()),
        "gflop_per_image": round(flops_per_image(model, alone, blank, training) / 1e9, 3),
        "precision": str(choose_dtype(training, device)).removeprefix("torch."),
        "hardware": describe_hardware(device),
    }
    if student.crd:
        negatives = usable_negatives(student.crd, images)
        facts["crd_negatives"] = negatives
        if negatives < student.crd.negatives:
            told = f"the set has no more than {negatives:,} other images"
            facts["crd_negatives_limited"] = f"{student.crd.negatives:,} were asked for, {told}"
    return facts
