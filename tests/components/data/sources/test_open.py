from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images

from components.data.config import Source
from components.data.sources.listing import choose_rows, unique_names
from components.data.sources.open import open_source
from components.errors import UserError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_digits_are_stored_as_ordinary_grey() -> None:
    listing = open_source(Source(builtin="digits"), "data.labelled", 8, labelled=True)
    images = np.stack(list(listing.read(np.arange(len(listing.paths)))))
    assert images.dtype == np.uint8
    assert len(np.unique(images)) == 17
    assert (images.min(), images.max()) == (0, 255)
    np.testing.assert_array_equal(np.rint(images / 255 * 16), load_digits().images)
    np.testing.assert_array_equal(listing.labels, load_digits().target)
    assert listing.present == tuple("0123456789")


def test_photo_patches_are_tiles_of_the_photographs() -> None:
    listing = open_source(Source(builtin="photo-patches"), "data.ood.photos.source", 16)
    assert len(listing.paths) == 2 * (427 // 16) * (640 // 16)
    first, second = list(listing.read(np.array([1, len(listing.paths) // 2])))
    photos = load_sample_images().images
    np.testing.assert_array_equal(first, photos[0][:16, 16:32])
    np.testing.assert_array_equal(second, photos[1][:16, :16])
    assert not listing.has_labels


def test_a_folder_with_a_sub_folder_a_class(image_folder: Callable[..., Path]) -> None:
    folder = image_folder("pets", dog=2, cat=3)
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "dog" / "young").mkdir()
    (folder / "dog" / "000.png").rename(folder / "dog" / "young" / "000.png")
    listing = open_source(Source(folder=str(folder)), "data.labelled", 8, labelled=True)
    assert listing.present == ("cat", "dog")
    assert listing.class_names(np.arange(5)) == ["cat"] * 3 + ["dog"] * 2
    assert [Path(path).relative_to(folder).as_posix() for path in listing.paths] == [
        "cat/000.png",
        "cat/001.png",
        "cat/002.png",
        "dog/001.png",
        "dog/young/000.png",
    ]
    assert list(listing.read(np.array([4]))) == [folder / "dog/young/000.png"]


def test_a_folder_of_images_has_no_labels(image_folder: Callable[..., Path]) -> None:
    source = Source(folder=str(image_folder("many", 4)))
    assert not open_source(source, "data.pretrain", 8).has_labels
    with pytest.raises(UserError, match=r"data\.labelled: .*many has no labels.*data\.pretrain"):
        open_source(source, "data.labelled", 8, labelled=True)


def test_folders_that_are_missing_empty_or_mixed(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    def message(folder: Path) -> str:
        with pytest.raises(UserError) as caught:
            open_source(Source(folder=str(folder)), "data.labelled", 8, labelled=True)
        return str(caught.value)

    assert "data.labelled.folder" in message(tmp_path / "missing")
    assert "not a folder" in message(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "is empty" in message(tmp_path / "empty")
    assert "not both" in message(image_folder("mixed", 1, cat=1))
    hollow = image_folder("hollow", cat=2, dog=0)
    assert f"the class folder {hollow / 'dog'} holds no image. Fill or remove it" in message(hollow)
    (hollow / "dog" / "story.txt").write_text("once")
    assert "holds no image (1 other file left alone: .txt 1)" in message(hollow)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("once")
    assert "texts holds no image (1 other file left alone: .txt 1)" in message(tmp_path / "texts")


def test_splits_are_no_classes(image_folder: Callable[..., Path]) -> None:
    folder = image_folder("set", **{"train/cat": 2, "train/dog": 2, "Test/cat": 1, "Test/dog": 1})
    with pytest.raises(UserError, match=r"holds splits \(Test, train\).*set/train.*data\.test\.folder"):
        open_source(Source(folder=str(folder)), "data.labelled", 8, labelled=True)
    assert len(open_source(Source(folder=str(folder)), "data.pretrain", 8).paths) == 6
    flat = image_folder("railway", train=2, test=2)  # two classes, whatever they are called
    assert open_source(Source(folder=str(flat)), "data.labelled", 8, labelled=True).present == ("test", "train")


def test_images_without_labels_may_lie_anywhere(image_folder: Callable[..., Path]) -> None:
    folder = image_folder("many", 2, **{"cat": 1, "trip/monday": 2})
    (folder / "trip" / "empty").mkdir()
    listing = open_source(Source(folder=str(folder)), "data.pretrain", 8)
    assert [Path(path).relative_to(folder).as_posix() for path in listing.paths] == [
        "000.png",
        "001.png",
        "cat/000.png",
        "trip/monday/000.png",
        "trip/monday/001.png",
    ]
    assert listing.class_names(np.arange(5)) == ["", "", "cat", "trip", "trip"]


def test_small_classes_are_left_out_where_asked(image_folder: Callable[..., Path]) -> None:
    source = Source(folder=str(image_folder("pets", ant=1, bee=5, cow=4)), min_class_images=5)
    listing = open_source(source, "data.labelled", 8, labelled=True)
    assert listing.small_classes(5) == {"ant": 1, "cow": 4}
    assert set(listing.class_names(choose_rows(listing, source, "data.labelled", rng()))) == {"bee"}


def test_a_class_in_two_spellings_of_unicode_is_one(image_folder: Callable[..., Path]) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    source = Source(folder=str(image_folder("places", **{composed: 2, decomposed: 3, "bar": 1})))
    listing = open_source(source, "data.labelled", 8, labelled=True)
    assert listing.class_names(np.arange(6)) == ["bar"] + [composed] * 5
    without = Source(folder=source.folder, exclude_classes=(decomposed,))
    assert len(choose_rows(listing, without, "data.labelled", rng())) == 1
    assert unique_names([decomposed]) == (composed,)


def test_limit_is_a_seeded_choice_and_classes_can_be_left_out(image_folder: Callable[..., Path]) -> None:
    source = Source(folder=str(image_folder("pets", ant=10, bee=10, cow=10)), limit=8, exclude_classes=("bee",))
    listing = open_source(source, "data.labelled", 8)
    rows = choose_rows(listing, source, "data.labelled", rng(3))
    assert len(rows) == 8
    assert (np.diff(rows) > 0).all()
    assert "bee" not in listing.class_names(rows)
    np.testing.assert_array_equal(rows, choose_rows(listing, source, "data.labelled", rng(3)))
    assert not np.array_equal(rows, choose_rows(listing, source, "data.labelled", rng(4)))


def test_an_unknown_class_to_leave_out_names_the_known_ones() -> None:
    source = Source(builtin="digits", exclude_classes=("ten",))
    listing = open_source(source, "data.labelled", 8)
    with pytest.raises(UserError, match=r"data\.labelled\.exclude_classes: no class 'ten'.*0, 1, 2"):
        choose_rows(listing, source, "data.labelled", rng())


def test_class_names_that_occur_twice_are_told_apart() -> None:
    assert unique_names(["crane", "owl", "crane"]) == ("crane (0)", "owl", "crane (2)")
