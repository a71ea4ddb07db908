import numpy as np
import pytest
import torch

from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.model.transformer import Attention
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.contrastive.moco import MoCoConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.masked import MaskedConfig
from components.objectives.objective import build_objective
from components.objectives.predictive.rotation import RotationConfig
from components.training.config import TrainingConfig
from components.training.summary import describe, flops_per_image
from tests.components.flops import flops_per_view

TRAINING = TrainingConfig(10, 4, 0.1, warmup_steps=0, device="cpu", precision="float32")


@pytest.fixture
def facts(make_palette):
    def of(training: TrainingConfig = TRAINING, scored_ratio: float = 1.0, scored_views: int = 2, **shape) -> dict:
        palette = make_palette(7, 1)
        variant = VariantConfig(
            1, 1, generative=AutoregressiveConfig(scored_ratio=scored_ratio, scored_views=scored_views)
        )
        architecture = Architecture.of(ModelConfig(2, **(shape or {"width": 64})), variant, 16, palette)
        model = build(architecture, palette, 0)
        objective = build_objective(variant, model, TrainingSet(np.zeros((4, 16, 16, 1), np.uint8)), 0)
        return describe(model, objective, architecture, training)

    return of


def test_what_a_run_costs(facts, make_palette):
    palette = make_palette(7, 1)
    architecture = Architecture.of(ModelConfig(2, width=64), VariantConfig(1, 1), 16, palette)
    found = facts()
    assert found["parameters"] == sum(p.numel() for p in build(architecture, palette, 0).parameters())
    assert found["gflop_per_image"] == round(2 * sum(flops_per_view(architecture).training) / 1e9, 3) > 0  # two views
    assert found["precision"] == "float32"
    assert found["hardware"].startswith(f"CPU, {torch.get_num_threads()} threads")


def test_more_views_cost_the_encoder_alone_and_fewer_scored_patches_less(facts, make_palette):
    architecture = Architecture.of(ModelConfig(2, width=64), VariantConfig(1, 1), 16, make_palette(7, 1))
    encoder, decoder = flops_per_view(architecture).training
    views = facts(TrainingConfig(10, 4, 0.1, warmup_steps=0, views=5, device="cpu", precision="float32"))
    more = views["gflop_per_image"] - facts()["gflop_per_image"]
    assert more == pytest.approx(3 * encoder / 1e9, abs=0.002)
    one = facts()["gflop_per_image"] - facts(scored_views=1)["gflop_per_image"]
    assert one == pytest.approx(decoder / 1e9, abs=0.002)
    assert facts(scored_views=1)["estimated_memory_gb"] < facts()["estimated_memory_gb"]
    assert facts(scored_ratio=0.25)["gflop_per_image"] < facts()["gflop_per_image"]
    assert facts(scored_ratio=0.25)["estimated_memory_gb"] < facts()["estimated_memory_gb"]


def test_all_that_a_step_computes_is_counted(make_palette):
    """Whatever a term owns or passes besides; attention in the fused kernel, too, which long sequences take."""
    palette, images = make_palette(7, 1), np.zeros((4, 24, 24, 1), np.uint8)

    def found(variant: VariantConfig) -> float:
        architecture = Architecture.of(ModelConfig(2, width=16, heads=2), variant, 24, palette)
        assert model_of(architecture).patches > Attention.LONGEST_EXPLICIT
        model = model_of(architecture)
        return flops_per_image(model, build_objective(variant, model, TrainingSet(images), 0), images, TRAINING)

    def model_of(architecture: Architecture) -> GCRL:
        return build(architecture, palette, 0)

    flops = flops_per_view(Architecture.of(ModelConfig(2, width=16, heads=2), VariantConfig(1, 1), 24, palette))
    assert found(VariantConfig(1, 1)) == 2 * sum(flops.training)
    one = Architecture.of(ModelConfig(2, width=16, heads=2), VariantConfig(0, 1), 24, palette)
    masked, hidden = VariantConfig(1, 1, generative=MaskedConfig()), VariantConfig(1, 0, generative=MaskedConfig())
    assert found(masked) == found(hidden) + 2 * sum(flops_per_view(one).training)  # another pass for the features
    head = 2 * 256 * (16 + 64)  # MoCo's other encoder projects a whole batch at once: not here
    assert found(VariantConfig(1, 1, contrastive=MoCoConfig(queue_size=4))) == 2 * (
        sum(flops.training) + flops.encoder - head
    )
    rotation = VariantConfig(0, 1, contrastive=RotationConfig())  # four views, and no projection head
    shape = Architecture.of(ModelConfig(2, width=16, heads=2), rotation, 24, palette)
    assert model_of(shape).projection is None
    assert found(rotation) == 4 * flops_per_view(shape).training[0]


def test_counting_leaves_a_model_as_it_was(make_palette):
    palette = make_palette(7, 1)
    model = build(Architecture.of(ModelConfig(2, width=16, heads=2), VariantConfig(1, 1), 8, palette), palette, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = np.zeros((4, 8, 8, 1), np.uint8)
    objective = build_objective(VariantConfig(1, 1), model, TrainingSet(images), 0)
    assert flops_per_image(model, objective, images, TRAINING) > 0
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_memory_holds_what_an_optimizer_keeps_of_each_weight_and_what_a_pass_keeps_of_each_image(facts):
    shape = {"width": 256, "encoder_layers": 2, "decoder_layers": 1, "projection_width": 2048}

    def gigabytes(batch_size: int, **changes) -> float:
        settings = {"warmup_steps": 0, "device": "cpu", "precision": "float32", "optimizer": "adamw", **changes}
        return facts(TrainingConfig(10, batch_size, 0.1, **settings), **shape)["estimated_memory_gb"]

    weights = 4 * facts(**shape)["parameters"] / 1e9
    few, more, many = (gigabytes(n) for n in (2, 34, 66))
    assert more - few == pytest.approx(many - more, abs=0.002)  # linear in the batch
    assert more - few > 0.1
    assert few > 4 * weights  # weight, gradient and AdamW's two moments
    assert gigabytes(66, micro_batch_size=2) == few
    assert gigabytes(2, ema_decay=0.9) == pytest.approx(few + weights, abs=0.002)
