"""A training that starts from the weights of another, of pictures of the same or another size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from components.errors import UserError
from components.files import file_digest
from components.model.build import Architecture, build, save_weights
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.objectives.config import VariantConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.generative.permuted import PermutedConfig
from components.training.start import resized_positions, start_from

HYBRID, GENERATIVE, CONTRASTIVE = VariantConfig(1, 1), VariantConfig(1, 0), VariantConfig(0, 1)
PERMUTED = VariantConfig(1, 1, generative=PermutedConfig(orders=2))
REDUCED = VariantConfig(1, 1, generative=AutoregressiveConfig(image_size=4, patch_size=2))
COLOURS = np.arange(0, 250, 50, dtype=np.uint8)[:, None]


def untrained(
    size: int, variant: VariantConfig = HYBRID, seed: int = 0, palette: np.ndarray = COLOURS, **shape: Any
) -> tuple[GCRL, Architecture]:
    settings = {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "local_width": 8}
    config = ModelConfig(**{"patch_size": 2, "projection_width": 16, "projection_size": 8, **settings, **shape})
    architecture = Architecture.of(config, variant, size, palette)
    return build(architecture, palette, seed).eval(), architecture


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """`saved(…)` is the file of a model that `untrained(…)` gave, and the model."""

    def save(*arguments: Any, **shape: Any) -> tuple[Path, GCRL]:
        model, architecture = untrained(*arguments, seed=1, **shape)
        save_weights(tmp_path / "weights.safetensors", model, architecture)
        return tmp_path / "weights.safetensors", model

    return save


@pytest.mark.parametrize("variant", [HYBRID, PERMUTED, REDUCED], ids=["raster", "any order", "reduced"])
def test_at_the_same_size_it_starts_where_the_other_ended(saved, variant):
    path, source = saved(8, variant)
    model, architecture = untrained(8, variant)
    told = start_from(model, architecture, path)
    assert told == {"start_from": str(path), "start_sha256": file_digest(path)}
    tokens = torch.randint(5, (3, 16, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = model(tokens), source(tokens)
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.projections, expected.projections)
    if variant is not PERMUTED:  # its orders are drawn anew
        assert torch.equal(found.nll, expected.nll)


@pytest.mark.parametrize("variant", [HYBRID, PERMUTED, REDUCED], ids=["raster", "any order", "reduced"])
@pytest.mark.parametrize(("before", "after"), [(4, 8), (8, 4), (8, 12)])
def test_at_another_size_all_but_the_positions_is_the_same(saved, variant, before, after):
    if variant is REDUCED and 4 in (before, after):
        pytest.skip("the reduced picture is smaller")
    path, source = saved(before, variant)
    model, architecture = untrained(after, variant)
    start_from(model, architecture, path)
    theirs, ours = source.state_dict(), model.state_dict()
    moved = {name for name, value in ours.items() if value.shape != theirs[name].shape}
    assert moved <= {"position", "next_position", "other_orders"}
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items() if name not in moved)
    assert torch.equal(ours["position"][0], theirs["position"][0])  # of the start
    grid = theirs["position"][1:].T.unflatten(1, (before // 2,) * 2)[None]
    expected = F.interpolate(grid, (after // 2,) * 2, mode="bicubic", antialias=True)[0].flatten(1).T
    assert torch.equal(ours["position"][1:], expected)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1))
def test_a_constant_stays_and_a_slope_keeps_its_direction(old, new, before):
    constant = resized_positions(torch.full((before + old**2, 3), 2.5), before + new**2, before)
    assert torch.allclose(constant, torch.tensor(2.5))
    rows = torch.arange(old).float().repeat_interleave(old)  # grows from row to row
    found = resized_positions(torch.cat([torch.zeros(before), rows])[:, None], before + new**2, before)
    grid = found[before:, 0].view(new, new)
    assert torch.allclose(grid, grid[:, :1].expand(-1, new), atol=1e-5)
    assert (grid.diff(dim=0) > 0).all() or old == 1


def test_a_variant_takes_the_parts_that_it_needs(saved):
    path, source = saved(8, HYBRID)
    model, architecture = untrained(8, CONTRASTIVE)
    start_from(model, architecture, path)
    assert torch.equal(model.patch.weight, source.patch.weight)
    assert model.head is None


def test_parts_that_are_not_there_are_named(saved):
    path, _ = saved(8, CONTRASTIVE)
    model, architecture = untrained(8, HYBRID)
    with pytest.raises(UserError, match=r"has no condition, decoder, decoder_norm, head, which this variant needs"):
        start_from(model, architecture, path)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ({"width": 32}, r"model\.width is 32, expected 16"),
        ({"patch_size": 4}, r"model\.patch_size is 4, expected 2"),
        ({"likelihood": "categorical"}, r"model\.likelihood is categorical, expected palette"),
        ({"palette": COLOURS[:, [0, 0, 0]]}, "channels is 3, expected 1"),
        ({"palette": COLOURS + 5}, "pictures of other colours"),
    ],
)
def test_another_shape_is_refused_and_leaves_the_model_alone(saved, shape, told):
    path, _ = saved(8, **shape)
    model, architecture = untrained(8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=told):
        start_from(model, architecture, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_no_weights_file_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a weights file of this project"):
        start_from(*untrained(8), tmp_path / "x")
