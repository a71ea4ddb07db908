"""Training a student: the loop of pretraining with another objective."""

from functools import partial
from pathlib import Path

from components.data.config import AugmentationConfig
from components.distillation.config import StudentConfig
from components.distillation.objective import Probe, build_student_objective
from components.model.gcrl import GCRL
from components.training.config import TrainingConfig
from components.training.loop import OnMetrics, Run, Trained, train
from components.training.validation import PretrainData


def distill(
    model: GCRL,
    teacher: GCRL,
    probe: Probe | None,
    data: PretrainData,
    student: StudentConfig,
    config: TrainingConfig,
    augmentation: AugmentationConfig,
    seed: int,
    resume: Path,
    resume_key: str,
    on_metrics: OnMetrics,
) -> Trained:
    """Train the encoder `model` in place to follow `teacher`, which stays as it is; see `pretrain` for the rest.

    `probe`, the teacher's, is needed for soft targets alone.
    """
    build = partial(build_student_objective, student, teacher, probe if student.kd else None)
    return train(model, data, Run(build, config, augmentation, seed, resume, resume_key), on_metrics)
