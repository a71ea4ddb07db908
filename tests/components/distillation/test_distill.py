import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.data.config import AugmentationConfig
from components.distillation.config import ClusterFitConfig, CrdConfig, KdConfig, RegressionConfig, StudentConfig
from components.distillation.distill import distill
from components.model.gcrl import GCRL
from components.training.checkpoint import History
from components.training.config import TrainingConfig

pytestmark = pytest.mark.trains

AUGMENTATION = AugmentationConfig(translate=0.1, brightness=0.2)
CONFIG = TrainingConfig(
    steps=12, batch_size=16, learning_rate=0.1, warmup_steps=2, device="cpu", precision="float32", log_every=2,
    evaluate_every=3, diagnose_every=4, checkpoint_seconds=0,
)  # fmt: skip
CRD, KD, REGRESSION = CrdConfig(negatives=20, embedding_size=8), KdConfig(), RegressionConfig()
CLUSTERFIT = ClusterFitConfig(clusters=6)
EVERYTHING = StudentConfig("hybrid", crd=CRD, kd=KD, regression=REGRESSION, clusterfit=CLUSTERFIT)
TIMING = {"seconds", "images_per_second"}


@pytest.fixture
def train(data, teacher, probe, tmp_path) -> Callable[..., History]:
    """Distil in place, by default for twelve steps without being interrupted; returns the history."""

    def run(
        model: GCRL,
        config: StudentConfig = EVERYTHING,
        resume: Path | None = None,
        on_metrics: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
        augmentation: AugmentationConfig = AUGMENTATION,
        **changes: Any,
    ) -> History:
        place, training = resume or tmp_path / "whole" / "resume.pt", replace(CONFIG, **changes)
        return distill(
            model, teacher, probe, data, config, training, augmentation, 0, place, "key", on_metrics
        ).history  # fmt: skip

    return run


def without_timing(history: History) -> History:
    return [{name: value for name, value in row.items() if name not in TIMING} for row in history]


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 4}, {"precision": "bfloat16", "ema_decay": 0.9}])
def test_a_resumed_run_ends_bit_for_bit_where_the_uninterrupted_one_ends(student, train, tmp_path, settings):
    """Heads, buffers and their constants included: what is left of them decides every later loss."""
    place, kept = tmp_path / "resume.pt", tmp_path / "kept.pt"

    def interrupt(step: int, metrics: dict[str, float]) -> None:
        if step == 6:  # the file of the step before; its own is not written yet
            shutil.copy(place, kept)
        if step == 8:
            raise KeyboardInterrupt

    whole, resumed = student(), student(seed=1)
    history = train(whole, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(student(), resume=place, on_metrics=interrupt, **settings)
    assert torch.load(kept)["step"] == 5
    again = train(resumed, resume=kept, **settings)
    assert without_timing(again) == without_timing(history)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    ends = [torch.load(file)["objective"] for file in (tmp_path / "whole" / "resume.pt", kept)]
    assert any("student_buffer" in name for name in ends[0])
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("settings", [{"micro_batch_size": 4}, {"processes": 2, "micro_batch_size": 4}])
def test_many_passes_and_processes_find_what_one_finds(student, train, tmp_path, settings):
    """The first step closely; AdamW's first updates amplify rounding."""
    few: dict[str, Any] = {"steps": 4, "learning_rate": 0.005, "optimizer": "adamw", "log_every": 1}
    one = train(student(), resume=tmp_path / "one.pt", **few)
    many = train(student(), resume=tmp_path / "many.pt", **few, **settings)
    names = ("crd_loss", "kd_loss", "regression_loss", "clusterfit_loss", "gradient_norm/all")
    for name in names:
        assert many[0][name] == pytest.approx(one[0][name], rel=1e-5), name
        assert many[-1][name] == pytest.approx(one[-1][name], rel=1e-2), name
    ends = [torch.load(tmp_path / f"{name}.pt")["objective"] for name in ("one", "many")]
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=1e-2, rtol=1e-2, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", ["crd", "kd", "regression", "clusterfit"])
def test_a_student_learns_and_its_teacher_does_not(student, teacher, train, name):
    before = copy.deepcopy(teacher.state_dict())
    config = StudentConfig("hybrid", **{name: EVERYTHING.terms[name]})
    model = student()
    start = copy.deepcopy(model.state_dict())
    few = {"steps": 100, "learning_rate": 0.05, "log_every": 10}
    history = train(model, config, augmentation=AugmentationConfig(), **few)
    losses = [row[f"{name}_loss"] for row in history if f"{name}_loss" in row]
    assert losses[-1] < 0.85 * losses[0]  # with five seeds the worst of the four came to 0.7
    assert all(not torch.equal(value, start[key]) for key, value in model.named_parameters() if value.ndim > 1)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any("projection" in key or "decoder" in key or "teacher" in key for key in model.state_dict())


def test_a_student_may_be_larger_than_its_teacher_and_have_other_patches(student, train):
    model = student(width=32, patch_size=4, encoder_layers=2)
    history = train(model, steps=6)
    assert "val/knn_accuracy" in history[-1]
