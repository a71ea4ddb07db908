import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.evaluation.ood.hard_examples import EXACT, SHRUNK, encoded, hard_examples, write_hard_examples

SCORES = {
    "val": np.array([9.0, 9.0]),
    "test": np.array([0.1, 0.9, 0.5, 0.9]),
    "near": np.array([0.8, 0.2, 0.6]),
    "far": np.array([0.7, 0.2]),
}


def pictures(channels: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, size, size, channels), np.uint8)


def opened(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture))


def test_the_lowest_ood_and_the_highest_test_scores_worst_first():
    found = hard_examples({"knn": SCORES}, {"knn": 0.55}, count=3)
    assert [(hard.set, hard.index, hard.score, hard.flagged) for hard in found] == [
        ("near", 1, 0.2, False),  # equal scores in the order of the sets
        ("far", 1, 0.2, False),
        ("near", 2, 0.6, True),
        ("test", 1, 0.9, True),
        ("test", 3, 0.9, True),
        ("test", 2, 0.5, False),
    ]


def test_fewer_images_than_asked_for():
    found = hard_examples({"knn": SCORES, "nll": SCORES}, {"knn": 0.5, "nll": 0.5}, count=100)
    assert [hard.detector for hard in found] == ["knn"] * 9 + ["nll"] * 9
    assert {(hard.set, hard.index) for hard in found} == {
        (name, i) for name in ("test", "near", "far") for i in range(len(SCORES[name]))
    }
    assert all(hard.score == SCORES[hard.set][hard.index] for hard in found)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32, EXACT])
def test_small_pictures_are_exact(channels, size):
    image = pictures(channels, size)[0]
    form, picture = encoded(image)
    assert form == "png"
    np.testing.assert_array_equal(np.asarray(opened(picture)).reshape(image.shape), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_large_pictures_are_shrunk(channels):
    form, picture = encoded(np.full((224, 112, channels), 200, np.uint8))
    assert form == "jpeg"
    assert opened(picture).size == (SHRUNK // 2, SHRUNK)
    assert np.asarray(opened(picture)).mean() == pytest.approx(200, abs=1)
    assert len(encoded(pictures(channels, 256)[0])[1]) < 10_000  # noise, which nothing compresses


def test_the_file_holds_what_was_found(tmp_path):
    images = {"test": pictures(1, 8), "near": pictures(1, 8)[::-1], "far": pictures(1, 8)}
    found = hard_examples({"knn": SCORES}, {"knn": 0.55}, count=2)
    write_hard_examples(
        tmp_path / "hardest.parquet",
        found,
        image=lambda name, row: images[name][row],
        class_name=lambda name, row: f"class {row}" if name == "test" else "",
        read_as=lambda name, row: f"read {name} {row}",
    )
    rows = pq.read_table(tmp_path / "hardest.parquet").to_pylist()
    assert len(rows) == len(found) == 4
    for row, hard in zip(rows, found, strict=True):
        picture = np.asarray(opened(row.pop("picture")))
        np.testing.assert_array_equal(picture[..., None], images[hard.set][hard.index])
        told = {"class_name": f"class {hard.index}" if hard.set == "test" else "", "form": "png"}
        assert row == {**vars(hard), **told, "read_as": f"read {hard.set} {hard.index}"}
