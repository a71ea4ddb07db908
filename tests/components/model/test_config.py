from dataclasses import asdict

import pytest

from components.model.config import SIZES, ModelConfig


def test_a_size_gives_what_is_not_given():
    config = ModelConfig(4, size="small", decoder_layers=4)
    assert (config.width, config.heads, config.encoder_layers, config.decoder_layers) == (384, 6, 10, 4)
    assert None not in {value for name, value in asdict(config).items() if name != "size"}  # what is shown is resolved
    assert ModelConfig(**asdict(config)) == config


def test_without_a_size_no_dimension_is_above_that_of_the_smallest_size_but_the_heads():
    small, tiny = asdict(ModelConfig(2)), asdict(ModelConfig(2, size="tiny"))
    assert all(small[name] <= tiny[name] for name in SIZES[None].keys() - {"heads"})
    assert small["width"] < tiny["width"]


@pytest.mark.parametrize("size", [size for size in SIZES if size])
def test_sizes_name_every_key_and_grow(size):
    assert SIZES[size].keys() == SIZES[None].keys()
    sizes = [ModelConfig(4, size=name).width for name in ("tiny", "small", "base")]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"mixture_components": 0}, "mixture_components must be at least 1"),
        ({"size": "tiny", "heads": 5}, r"width \(192\) must be a multiple of heads \(5\)"),
    ],
)
def test_impossible_shapes(changes, told):
    with pytest.raises(ValueError, match=told):
        ModelConfig(2, **changes)
