import torch

from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig
from components.training.config import TrainingConfig
from components.training.summary import describe


def test_what_a_run_costs(make_palette):
    palette = make_palette(7, 1)
    architecture = Architecture.of(ModelConfig(2, width=64), VariantConfig(1, 1), 16, palette)
    model = build(architecture, palette, 0)
    training = TrainingConfig(10, 4, 0.1, warmup_steps=0, device="cpu", precision="float32")
    facts = describe(model, architecture, training)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert facts["gflop_per_image"] == round(2 * 6 * matrices * 64 / 1e9, 3) > 0  # 64 patches, two views
    assert facts["precision"] == "float32"
    assert facts["hardware"].startswith(f"CPU, {torch.get_num_threads()} threads")
