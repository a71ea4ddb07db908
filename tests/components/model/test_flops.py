import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from components.model.build import Architecture, build
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.pixelcnn import PixelCNNConfig
from tests.components.flops import flops_per_view


@pytest.mark.parametrize("likelihood", ["palette", "logistic_mixture", "categorical"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("w_gen", "w_con"), [(1, 1), (1, 0), (0, 1)])
@pytest.mark.parametrize("scored", [None, 3])
def test_the_formula_equals_what_is_counted(likelihood, channels, told, w_gen, w_con, scored, make_palette):
    variant = VariantConfig(w_gen, w_con, generative=AutoregressiveConfig(condition_on_augmentation=told))
    assert_formula_equals_count(variant, likelihood, scored, make_palette(7, channels))


@pytest.mark.parametrize("likelihood", ["palette", "logistic_mixture", "categorical"])
@pytest.mark.parametrize("channels", [1, 3])
def test_that_of_nested_blocks_too(likelihood, channels, make_palette):
    assert_formula_equals_count(VariantConfig(1, 0), likelihood, None, make_palette(7, channels), 12, 24)


@pytest.mark.parametrize("likelihood", ["palette", "logistic_mixture"])
@pytest.mark.parametrize("w_con", [1, 0])
@pytest.mark.parametrize("filters", [None, 5])
def test_that_of_convolutions_too(likelihood, w_con, filters, make_palette):
    variant = VariantConfig(1, w_con, generative=PixelCNNConfig(filters=filters))
    assert_formula_equals_count(variant, likelihood, None, make_palette(7, 3))


def assert_formula_equals_count(
    variant: VariantConfig, likelihood: str, scored: int | None, palette: np.ndarray, patch: int = 2, size: int = 6
) -> None:
    shape = {"width": 16, "heads": 2, "encoder_layers": 3, "decoder_layers": 1, "local_width": 5}
    config = ModelConfig(patch, **shape, likelihood=likelihood)
    architecture, channels = Architecture.of(config, variant, size, palette), palette.shape[1]
    model, n = build(architecture, palette, 0), 4
    tokens = model.tokenizer(torch.zeros(n, channels, size, size))
    condition = torch.zeros(n, model.condition.in_features) if model.condition else None
    chosen = None if scored is None else torch.arange(scored).expand(n, -1)
    with FlopCounterMode(display=False) as forward:
        outputs = model(tokens, condition, chosen)
        loss = outputs.features.sum()
        loss = loss + sum(x.sum() for x in (outputs.projections, outputs.nll) if x is not None)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    found = flops_per_view(architecture, scored)
    assert n * (found.encoder + found.decoder) == forward.get_total_flops()
    assert n * sum(found.training) == forward.get_total_flops() + backward.get_total_flops()


def test_patches_are_an_order_of_magnitude_cheaper_than_pixels():
    def per_view(**shape) -> float:
        config = ModelConfig(size="small", **shape)
        architecture = Architecture.of(config, VariantConfig(1, 1), 32, np.zeros((512, 3), np.uint8))
        return sum(flops_per_view(architecture).training)

    pixels = per_view(patch_size=1)
    assert pixels > 10 * per_view(patch_size=4)
    assert pixels > 10 * per_view(patch_size=4, likelihood="logistic_mixture")
