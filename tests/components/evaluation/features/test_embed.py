import math
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.prepared import Prepared
from components.evaluation.features.embed import embed
from components.model.encode import encode_images
from components.model.tokens import to_unit

SPLITS = ("train", "val", "test", "pretrain", "ood-far")
CPU = torch.device("cpu")


@pytest.fixture
def prepared(tmp_path: Path, make_palette):
    """A prepared folder of random images in a palette of five colours."""

    def make(channels: int) -> Prepared:
        (tmp_path / "prepared").mkdir()
        rng = np.random.default_rng(0)
        for split in SPLITS:
            chosen = make_palette(5, channels)[rng.integers(0, 5, (9, 4, 4))]
            np.save(tmp_path / "prepared" / f"{split}.npy", chosen)
        meta = {"splits": dict.fromkeys(SPLITS), "image_size": 4, "channels": channels}
        return Prepared(tmp_path / "prepared", meta)

    return make


@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_uniform_model_needs_the_logarithm_of_the_colours(prepared, make_model, tmp_path, patch_size, channels):
    model = make_model(patch_size, 4, 5, channels, fresh=True)
    metrics = embed(model, prepared(channels), tmp_path / "out", CPU)
    bits = np.load(tmp_path / "out" / "test.bits_per_dim.npy")
    assert bits.dtype == np.float64
    assert bits == pytest.approx(np.full(9, math.log2(5) / channels))
    assert np.load(tmp_path / "out" / "test.bits_without_context.npy") == pytest.approx(bits)  # nothing to know
    assert metrics["bits_per_dim/test"] == pytest.approx(math.log2(5) / channels)


def test_bits_per_dim_of_a_known_distribution(prepared, make_model, make_palette, tmp_path):
    """A model whose pixels are independent and have known probabilities."""
    model = make_model(2, 4, 5, fresh=True)
    probability = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])
    with torch.no_grad():
        model.head.logits.bias.copy_(probability.log() + 3)
    data = prepared(1)
    embed(model, data, tmp_path / "out", CPU)
    index = np.searchsorted(make_palette(5, 1)[:, 0], data.images("val")[..., 0])  # (N, H, W)
    expected = np.array([1, 2, 3, 4, 4])[index].mean((1, 2))
    assert np.load(tmp_path / "out" / "val.bits_per_dim.npy") == pytest.approx(expected, abs=1e-6)


def test_what_is_written(prepared, make_model, tmp_path):
    data, model = prepared(1), make_model(2, 4, 5)
    metrics = embed(model, data, tmp_path / "out", CPU)
    splits = [split for split in SPLITS if split != "pretrain"]
    files = {f"{split}.{k}.npy" for split in splits for k in ("features", "bits_per_dim", "bits_without_context")}
    assert {file.name for file in (tmp_path / "out").iterdir()} == files
    bits = {f"{kind}/{split}" for split in splits for kind in ("bits_per_dim", "bits_without_context")}
    assert set(metrics) == bits | {"feature_std", "effective_rank"}
    features = np.load(tmp_path / "out" / "test.features.npy")
    with torch.no_grad():
        expected = model(model.tokenizer(to_unit(torch.from_numpy(np.array(data.images("test")))))).features
    assert features.dtype == np.float32
    assert features == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_variant_without_a_likelihood_writes_features_alone(prepared, make_model, tmp_path):
    metrics = embed(make_model(2, 4, 5, w_gen=0), prepared(1), tmp_path / "out", CPU)
    assert set(metrics) == {"feature_std", "effective_rank"}
    assert all(file.name.endswith(".features.npy") for file in (tmp_path / "out").iterdir())


def test_the_size_of_a_batch_changes_nothing(make_model):
    model = make_model(2, 4, 5)
    images = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 1), dtype=np.uint8)
    features, nll = encode_images(model, images, CPU)
    assert len(features) == len(nll) == 11
    for batch_size in (1, 4):
        again, nll_again = encode_images(model, images, CPU, batch_size)
        torch.testing.assert_close(again, features, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(nll_again, nll, atol=1e-5, rtol=1e-5)
