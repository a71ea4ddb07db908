import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.errors import ConfigError, UserError
from components.model.build import Architecture, build, load_weights, save_weights
from components.model.config import ModelConfig
from components.objectives.config import VariantConfig

MODEL = ModelConfig(patch_size=2, width=16, heads=2, encoder_layers=1, decoder_layers=1, local_width=8)


@pytest.fixture
def palette(make_palette):
    return make_palette(5, 3)


@pytest.fixture
def architecture(palette) -> Architecture:
    return Architecture.of(MODEL, VariantConfig(1, 1), 4, palette)


@pytest.fixture
def saved(tmp_path: Path, make_model) -> tuple[Path, torch.nn.Module, Architecture]:
    model = make_model(2, 4, 5, channels=3)
    shape = ModelConfig(2, 16, 2, 2, 2, 8, 16, 8)
    parts = {
        "generative": True,
        "contrastive": True,
        "condition_on_augmentation": True,
        "bidirectional": False,
        "orders": 0,
    }
    architecture = Architecture(shape, 4, 3, 5, **parts)
    save_weights(tmp_path / "model.safetensors", model, architecture)
    return tmp_path / "model.safetensors", model, architecture


def test_a_patch_size_that_does_not_divide_the_image(palette):
    with pytest.raises(ConfigError, match=r"model\.patch_size: 2 does not divide data\.image_size \(5\)"):
        Architecture.of(MODEL, VariantConfig(1, 1), 5, palette)


def test_the_seed_alone_decides_the_weights(architecture, palette):
    torch.manual_seed(1)
    one = build(architecture, palette, seed=7).state_dict()
    drawn_after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn_after, torch.rand(3))  # building draws nothing from the process's generator
    again, other = (build(architecture, palette, seed=seed).state_dict() for seed in (7, 8))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not torch.equal(one["patch.weight"], other["patch.weight"])


def test_a_loaded_model_gives_identical_outputs(saved):
    path, model, architecture = saved
    loaded, found = load_weights(path, architecture)
    assert found == architecture
    assert not loaded.training
    tokens = torch.randint(5, (3, 4, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = model(tokens), loaded(tokens)
    for name in ("features", "projections", "nll"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert torch.equal(model.tokenizer.palette, loaded.tokenizer.palette)


@pytest.mark.parametrize("likelihood", ["logistic_mixture", "categorical"])
def test_8_bit_models_are_saved_and_loaded_too(tmp_path, make_palette, likelihood):
    config, palette = replace(MODEL, likelihood=likelihood), make_palette(5, 3)
    architecture = Architecture.of(config, VariantConfig(1, 1), 4, palette)
    assert architecture.colours == 256
    assert architecture == Architecture.of(config, VariantConfig(1, 1), 4, make_palette(9, 3))  # no palette is used
    model = build(architecture, palette, 0).eval()
    save_weights(tmp_path / "model.safetensors", model, architecture)
    loaded, _ = load_weights(tmp_path / "model.safetensors", architecture)
    tokens = torch.randint(256, (3, 4, 4, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(tokens).nll, loaded(tokens).nll)
    with pytest.raises(UserError, match=rf"model\.likelihood is {likelihood}, expected palette"):
        load_weights(tmp_path / "model.safetensors", Architecture.of(MODEL, VariantConfig(1, 1), 4, palette))


def test_the_file_holds_the_modules_own_names(saved, tmp_path):
    path, model, _ = saved
    assert set(load_file(path)) == set(model.state_dict())
    assert not any("_orig_mod" in name for name in load_file(path))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.safetensors: no model weights here"):
        load_weights(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colours": 6}, "colours is 5, expected 6"),
        ({"image_size": 8}, "image_size is 4, expected 8"),
        ({"condition_on_augmentation": False}, "condition_on_augmentation is True, expected False"),
        ({"model": replace(MODEL, width=32)}, r"model\.width is 16, expected 32"),
    ],
)
def test_another_architecture(saved, change, told):
    path, _, architecture = saved
    with pytest.raises(UserError, match=rf"model\.safetensors: weights of another architecture: .*{told}"):
        load_weights(path, replace(architecture, **change))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(saved, value):
    path, model, architecture = saved
    with torch.no_grad():
        model.patch.weight[0, 0] = value
    save_weights(path, model, architecture)
    with pytest.raises(UserError, match=r"model\.safetensors: weights that are not finite numbers in patch\.weight"):
        load_weights(path, architecture)


def rewrite(path: Path, architecture: Architecture | None, **tensors: torch.Tensor | None) -> None:
    """Replace tensors of a weights file, or take them out (None); without an architecture, take out the metadata."""
    kept = {name: value for name, value in {**load_file(path), **tensors}.items() if value is not None}
    save_file(kept, path, metadata={"architecture": json.dumps(asdict(architecture))} if architecture else None)


def test_files_that_are_no_weights_of_ours(saved):
    path, _, architecture = saved
    whole = path.read_bytes()
    broken = [b"", b"no weights", whole[: len(whole) // 2], whole[:-1], whole[:20]]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"model\.safetensors: not a weights file of this project"):
            load_weights(path, architecture)

    path.write_bytes(whole)
    rewrite(path, None)
    with pytest.raises(UserError, match="not a weights file of this project"):
        load_weights(path)

    for name, value in (("tokenizer.palette", None), ("patch.weight", torch.zeros(3, 3))):
        path.write_bytes(whole)
        rewrite(path, architecture, **{name: value})
        with pytest.raises(UserError, match="weights do not fit their own description"):
            load_weights(path, architecture)
