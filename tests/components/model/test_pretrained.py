"""Encoders of timm with weights from a file: frozen, with their own preprocessing, beside a likelihood of our own."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import save_file

from components.errors import ConfigError, UserError
from components.model.build import Architecture, build, load_weights, save_weights
from components.model.config import ModelConfig, PretrainedConfig
from components.model.encode import encode_images, thumbnails
from components.model.pretrained import PretrainedEncoder, pretrained_encoder
from components.objectives.config import VariantConfig
from components.objectives.generative.masked import MaskedConfig
from components.objectives.settings import Task

VIT, CONV = "test_vit", "test_efficientnet"
TINY = {
    "width": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "local_width": 8,
    "likelihood": "categorical",
}
PALETTE = np.zeros((256, 3), np.uint8)
CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path: Path):
    """`weights(name)` is the file of a timm model, with its classifier, as they are published, and the model."""

    def save(name: str, suffix: str = ".safetensors"):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=7).eval()
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.ndim == 1 and value.is_floating_point():
                    value.add_(torch.rand(value.shape))  # statistics that are not 0 and 1
        file = tmp_path / f"{name}{suffix}"
        if suffix == ".pth":  # as timm's own training writes it
            torch.save({"state_dict": model.state_dict()}, file)
        else:
            save_file(model.state_dict(), file)
        return str(file), model

    return save


@pytest.mark.parametrize(("name", "size", "enlarged"), [(VIT, 160, None), (CONV, 48, None), (CONV, 48, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_that_timm_gives(weights, name, size, enlarged, channels):
    file, model = weights(name, ".pth" if enlarged else ".safetensors")
    encoder, told = pretrained_encoder(PretrainedConfig(name, file, enlarged), size)
    assert told["encoder"] == name
    assert told["encoder_weights"] == file
    assert told["encoder_license"] == "not stated"  # timm's entry is of the weights on the hub
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    inputs = torch.nn.functional.interpolate(images, enlarged or size, mode="bilinear").expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        expected = model.forward_head(model.forward_features((inputs - mean) / std), pre_logits=True)
        assert torch.allclose(encoder(images), expected, atol=1e-5)
    assert encoder.feature_size == expected.shape[1]


def test_a_transformers_positions_fit_another_size(weights):
    file, _ = weights(VIT)
    encoder, _ = pretrained_encoder(PretrainedConfig(VIT, file), 96)
    assert encoder(torch.rand(1, 3, 96, 96)).shape == (1, 64)


def test_it_stays_as_it_is(weights):
    file, _ = weights(CONV)
    encoder, _ = pretrained_encoder(PretrainedConfig(CONV, file), 32)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    encoder(torch.rand(4, 3, 32, 32))
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(("name", "size", "enlarged"), [(VIT, 96, None), (CONV, 24, 36)])
def test_onnx_runtime_agrees(weights, tmp_path, name, size, enlarged):
    file, _ = weights(name)
    encoder, _ = pretrained_encoder(PretrainedConfig(name, file, enlarged), size)
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    dynamic = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    torch.onnx.export(
        encoder,
        (images[:2],),
        tmp_path / "x.onnx",
        dynamo=True,
        dynamic_shapes=dynamic,
        opset_version=20,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert np.abs(found - encoder(images).numpy()).max() < 1e-4


def test_a_likelihood_beside_it_is_exact_and_trained_alone(weights):
    """In patches of one pixel of one channel: what each of 256 values has sums to one."""
    file, _ = weights(CONV)
    variant = VariantConfig(1, 0, encoder=PretrainedConfig(CONV, file, 32))
    palette = np.zeros((256, 1), np.uint8)
    architecture = Architecture.of(ModelConfig(1, **TINY), variant, 2, palette)
    encoder, _ = pretrained_encoder(variant.encoder, 2)
    model = build(architecture, palette, 0, encoder).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    images = torch.tensor(list(itertools.product([3], [200], [90], range(256)))).view(256, 2, 2, 1)
    tokens = model.tokenizer.patches(images)
    with torch.no_grad():
        last = model(tokens).nll[:, -1, 0].double()
        nll = model.nll(tokens)
    assert (-last).exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(nll[:, -1, 0].double(), last)
    model.train()
    model.nll(tokens[:2]).mean().backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert any(p.grad is not None for p in model.head.parameters())


@pytest.mark.parametrize("w_gen", [0, 1])
def test_weights_come_back_whole(weights, tmp_path, w_gen):
    file, _ = weights(CONV)
    variant = VariantConfig(w_gen, 0, encoder=PretrainedConfig(CONV, file))
    architecture = Architecture.of(ModelConfig(4, **TINY), variant, 32, PALETTE)
    encoder, _ = pretrained_encoder(variant.encoder, 32)
    model = build(architecture, PALETTE, 0, encoder).eval()
    save_weights(tmp_path / "ours", model, architecture)
    Path(file).unlink()  # the file of the run holds everything
    loaded, _ = load_weights(tmp_path / "ours", architecture)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    (features, nll), (expected, expected_nll) = (encode_images(m, images, CPU) for m in (loaded, model))
    assert features.shape == (3, encoder.feature_size)
    assert torch.equal(features, expected)
    assert (nll is None) == (w_gen == 0)
    assert nll is None or torch.equal(nll, expected_nll)


def test_mistakes_are_told(weights, tmp_path, monkeypatch):
    file, _ = weights(CONV)
    with pytest.raises(ConfigError, match="has no model 'test_vitt', did you mean 'test_vit'"):
        pretrained_encoder(PretrainedConfig("test_vitt"), 32)
    with pytest.raises(UserError, match="there is no file nowhere"):
        pretrained_encoder(PretrainedConfig(CONV, "nowhere"), 32)
    with pytest.raises(
        UserError, match=r"no weights from the file .*size mismatch.*Give the weights of this architecture"
    ):
        pretrained_encoder(PretrainedConfig("test_resnet", file), 32)
    for name in ("damaged.safetensors", "damaged.pth"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(UserError, match=rf"no weights from the file .*{name}"):
            pretrained_encoder(PretrainedConfig(CONV, str(tmp_path / name)), 32)
    with pytest.raises(ConfigError, match=r"test_vit cannot take pictures of 30×30 pixels .*encoder\.image_size"):
        pretrained_encoder(PretrainedConfig(VIT, file), 30)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"no weights from the Hugging Face hub .*encoder\.weights"):
        pretrained_encoder(PretrainedConfig(CONV), 32)


def test_settings_that_contradict_each_other_are_refused():
    encoder = PretrainedConfig(CONV)
    with pytest.raises(ValueError, match="set w_con to 0"):
        VariantConfig(1, 1, encoder=encoder)
    with pytest.raises(ValueError, match="masked trains an encoder"):
        VariantConfig(1, 0, generative=MaskedConfig(), encoder=encoder)
    assert not VariantConfig(0, 0, encoder=encoder).trains
    task = Task(side=8, image_size=32, channels=3, likelihood="palette", encoder_layers=1)
    with pytest.raises(ValueError, match=r"^encoder: .*Set model\.likelihood to logistic_mixture"):
        VariantConfig(0, 0, encoder=encoder).check(task)
    small = VariantConfig(0, 0, encoder=PretrainedConfig(CONV, image_size=16))
    with pytest.raises(ValueError, match=r"^encoder\.image_size: 16 is below data\.image_size \(32\)"):
        small.check(replace(task, likelihood="categorical"))


def test_thumbnails_are_means_of_squares():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 1), dtype=np.uint8)
    small = thumbnails(images)
    assert np.abs(small - images.reshape(3, 32, 2, 32, 2, 1).mean((2, 4))).max() <= 0.5 + 1e-4
    assert thumbnails(small) is small


def test_an_encoder_knows_its_own_statistics():
    encoder = PretrainedEncoder(CONV, 32)
    published = timm.create_model(CONV).pretrained_cfg
    assert encoder.mean.flatten().tolist() == pytest.approx(published["mean"])
    assert encoder.std.flatten().tolist() == pytest.approx(published["std"])
