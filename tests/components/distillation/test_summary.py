import dataclasses

import pytest

from components.distillation.config import ClusterFitConfig, CrdConfig, KdConfig, StudentConfig
from components.distillation.summary import describe
from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.training.config import TrainingConfig
from tests.components.flops import flops_per_view

TRAINING = TrainingConfig(1, 4, 0.1, warmup_steps=0, device="cpu", precision="float32")
CRD = StudentConfig("t", crd=CrdConfig(negatives=20))


@pytest.mark.parametrize("student", [CRD, StudentConfig("t", kd=KdConfig(), clusterfit=ClusterFitConfig())])
def test_what_the_student_itself_computes_is_counted(teacher, make_palette, student):
    """Not the teacher's pass, nor what the losses own."""
    palette = make_palette(8, 1)
    architecture = Architecture.of_encoder(ModelConfig(2, width=64, heads=2), 8, palette)
    found = describe(build(architecture, palette, 0), teacher, architecture, student, TRAINING, 96)
    assert found["gflop_per_image"] == round(flops_per_view(architecture).training[0] / 1e9, 3) > 0
    assert ("crd_negatives" in found) == (student.crd is not None)


def test_fewer_negatives_than_asked_for_are_told(teacher, make_palette):
    palette = make_palette(8, 1)
    architecture = Architecture.of_encoder(ModelConfig(2, width=16, heads=2), 8, palette)
    facts = (build(architecture, palette, 0), teacher, architecture)
    assert "crd_negatives_limited" not in describe(*facts, CRD, TRAINING, 96)
    many = dataclasses.replace(CRD, crd=CrdConfig(negatives=200))
    found = describe(*facts, many, TRAINING, 96)
    assert found["crd_negatives"] == 95
    assert found["crd_negatives_limited"].startswith("200 were asked for")
