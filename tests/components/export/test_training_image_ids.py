"""Which images a model knows, on the digits."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from components.data.config import DataConfig, OodSet, Source
from components.data.prepare import prepare
from components.data.prepared import Prepared
from components.export.training_image_ids import known_images, unknown_rows


def digits(folder: Path, seed: int, limit: int = 300, **pretrain: Source) -> Prepared:
    config = DataConfig(
        image_size=8,
        channels=1,
        labelled=Source(builtin="digits", limit=limit),
        ood={"shuffled": OodSet(distance="far", shuffled_test=True)},
        **pretrain,
    )
    prepare(config, seed, folder, 1)
    return Prepared.open(folder)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return digits(tmp_path_factory.mktemp("before") / "prepared", seed=0)


def hashes(prepared: Prepared, *splits: str) -> list[str]:
    return [hashlib.sha256(image.tobytes()).hexdigest() for split in splits for image in prepared.images(split)]


def test_the_splits_hashes_are_those_of_its_images(before):
    for split in before.splits:
        assert before.sha256(split) == hashes(before, split)


def test_known_are_the_images_of_train_val_and_pretraining(before, tmp_path):
    known = known_images(before)
    assert known.dtype == np.uint64
    assert known.tolist() == sorted({int(digest[:16], 16) for digest in hashes(before, "train", "val")})
    assert [len(unknown_rows(before, split, known)) for split in ("train", "val")] == [0, 0]
    assert len(unknown_rows(before, "test", known)) == len(before.images("test"))
    with_more = digits(tmp_path / "prepared", 0, 100, pretrain=Source(builtin="digits"))
    assert len(known_images(with_more)) > len(with_more.images("pretrain")) > 1000


def test_after_another_division_the_unknown_are_those_that_were_test_images_before(before, tmp_path):
    after = digits(tmp_path / "prepared", seed=1)
    rows = unknown_rows(after, "test", known_images(before))
    assert 0 < len(rows) < len(after.images("test"))
    seen = {*hashes(before, "train", "val")}
    assert rows.tolist() == [row for row, digest in enumerate(hashes(after, "test")) if digest not in seen]
    assert len(unknown_rows(after, "ood-shuffled", known_images(before))) == len(after.images("ood-shuffled"))
