import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components.data.prepared import Prepared
from components.errors import UserError
from components.evaluation.config import EmbedConfig
from components.evaluation.features.layers import embed_layers, layer_features
from components.evaluation.features.store import evenly_spread
from components.model.encode import encode_images
from components.model.tokens import to_unit
from components.objectives.generative.permuted import PermutedConfig
from components.objectives.generative.pixelcnn import PixelCNNConfig

CPU = torch.device("cpu")
LABELS = {"train": [0, 1, 0, 0, 1, 1, 0, 2, 1, 0, 1], "val": [1, 0, 0, 1, 2], "test": [0, 1, 2], "ood-far": [-1] * 4}
SPLITS = {split: len(labels) for split, labels in LABELS.items()}


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "prepared"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        np.save(folder / f"{split}.npy", rng.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8))
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    labels = [label for labels in LABELS.values() for label in labels]
    pq.write_table(pa.table({"split": splits, "label": labels}), folder / "manifest.parquet")
    return Prepared(folder, {"splits": dict.fromkeys(SPLITS)})


@pytest.mark.parametrize(
    "settings",
    [
        {"likelihood": "palette"},
        {"likelihood": "logistic_mixture"},
        {"generative": PermutedConfig()},
        {"generative": PixelCNNConfig()},
    ],
    ids=["palette", "logistic mixture", "any order", "convolutions"],
)
def test_after_the_last_block_they_are_what_the_model_makes_of_an_image(make_model, prepared, settings):
    model = make_model(patch_size=2, image_size=4, colours=5, **settings)
    images = prepared.images("train")
    layers = layer_features(model, images, CPU, batch_size=4)
    assert {part: (found.dtype, found.shape) for part, found in layers.items()} == {
        "encoder": (np.float16, (2, 11, 16)),
        "decoder": (np.float16, (2, 11, 16)),
    }
    np.testing.assert_allclose(layers["encoder"][-1], encode_images(model, images, CPU)[0], rtol=2e-3, atol=1e-3)
    with torch.no_grad():
        encoded = model.encode(model.tokenizer(to_unit(torch.from_numpy(np.array(images)))))
        contexts = model.contexts(encoded[:, :-1])  # what the local head is told
    np.testing.assert_allclose(layers["decoder"][-1], contexts.mean(1), rtol=2e-3, atol=1e-3)


def test_the_first_layer_is_that_of_a_shallower_encoder(make_model, prepared):
    model = make_model(patch_size=2, image_size=4, colours=5, w_gen=0)
    images = prepared.images("train")
    first = layer_features(model, images, CPU)["encoder"][0]
    model.encoder.blocks = model.encoder.blocks[:1]
    np.testing.assert_allclose(first, encode_images(model, images, CPU)[0], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("w_gen", [1, 0])
def test_what_is_written(make_model, prepared, tmp_path, w_gen):
    model = make_model(patch_size=2, image_size=4, colours=5, w_gen=w_gen)
    embed_layers(model, prepared, EmbedConfig(layer_images=4), tmp_path / "out", CPU)
    parts = ("encoder", "decoder") if w_gen else ("encoder",)
    written = {file.name for file in (tmp_path / "out/layers").iterdir()}
    assert written == {f"{split}.{kind}.npy" for split in ("train", "val", "test") for kind in (*parts, "rows")}
    rows = np.load(tmp_path / "out/layers/train.rows.npy")
    assert set(rows) == {*evenly_spread(11, 4), 0, 1, 7}  # and the first of each class
    for part, features in layer_features(model, prepared.images("train")[rows], CPU).items():
        np.testing.assert_array_equal(np.load(tmp_path / f"out/layers/train.{part}.npy"), features)
    assert np.load(tmp_path / "out/layers/test.encoder.npy").shape == (2, 3, 16)


def test_none_are_written_where_none_are_wanted(make_model, prepared, tmp_path):
    embed_layers(make_model(patch_size=2, image_size=4), prepared, EmbedConfig(layer_images=0), tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()


def test_values_beyond_16_bits_are_refused(make_model, prepared, tmp_path):
    model = make_model(patch_size=2, image_size=4)
    with torch.no_grad():
        model.norm.bias[3] = 1e5
    with pytest.raises(UserError, match=r"the encoder's features of split 'train' hold values that are NaN or beyond"):
        embed_layers(model, prepared, EmbedConfig(), tmp_path / "out", CPU)
    assert not (tmp_path / "out/layers/train.encoder.npy").exists()
