import numpy as np
import pytest

from components.errors import UserError
from components.evaluation.features.store import Embedded, write_features


def test_what_is_written_is_read_back_memory_mapped(tmp_path):
    features, bits = np.random.default_rng(0).normal(size=(5, 3)), np.linspace(1, 2, 5)
    write_features(tmp_path / "embed", "val", features, bits, bits + 1)
    write_features(tmp_path / "embed", "ood-photos", features[:2], None)
    embedded = Embedded.open(tmp_path / "embed")
    assert embedded.splits == ("ood-photos", "val")
    assert embedded.features("val").dtype == np.float32
    assert isinstance(embedded.features("val"), np.memmap)
    np.testing.assert_allclose(embedded.features("val"), features, rtol=1e-6)
    np.testing.assert_array_equal(embedded.bits_per_dim("val"), bits)
    np.testing.assert_array_equal(embedded.bits_without_context("val"), bits + 1)
    assert embedded.bits_per_dim("ood-photos") is None
    assert embedded.bits_without_context("ood-photos") is None


def test_a_variant_without_likelihood_removes_the_file_of_an_earlier_one(tmp_path):
    write_features(tmp_path, "val", np.ones((2, 2)), np.ones(2), np.ones(2))
    write_features(tmp_path, "val", np.ones((2, 2)), None)
    assert Embedded.open(tmp_path).bits_per_dim("val") is None
    assert [path.name for path in tmp_path.iterdir()] == ["val.features.npy"]


def test_missing_folder_and_split_are_named(tmp_path):
    with pytest.raises(UserError, match="embed stage"):
        Embedded.open(tmp_path / "nowhere")
    write_features(tmp_path, "train", np.ones((2, 2)), None)
    with pytest.raises(UserError, match=r"val\.features\.npy: not found, the embedded splits are train"):
        Embedded.open(tmp_path).features("val")


def test_likelihoods_of_another_run_are_refused(tmp_path):
    write_features(tmp_path, "val", np.ones((3, 2)), np.ones(3))
    np.save(tmp_path / "val.bits_per_dim.npy", np.ones(4))
    with pytest.raises(UserError, match="4 likelihoods for 3 features"):
        Embedded.open(tmp_path).bits_per_dim("val")


@pytest.mark.parametrize(("features", "bits"), [([[np.nan]], [1.0]), ([[1.0]], [np.inf])])
def test_broken_values_are_refused_and_nothing_is_written(tmp_path, features, bits):
    with pytest.raises(UserError, match="split 'val' hold NaN or infinite"):
        write_features(tmp_path, "val", np.array(features), np.array(bits))
    assert list(tmp_path.iterdir()) == []
