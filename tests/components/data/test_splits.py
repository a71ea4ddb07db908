import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.splits import stratified_split, without_duplicates, without_shared
from components.errors import UserError

CLASSES = ("ant", "bee", "cow")
FRACTIONS = {"val": 0.1, "test": 0.2}


def split(labels: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    return stratified_split(labels, CLASSES, FRACTIONS, np.random.default_rng(seed))


@st.composite
def label_sets(draw: st.DrawFn) -> np.ndarray:
    counts = draw(st.lists(st.integers(3, 60), min_size=3, max_size=3))
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(np.repeat(np.arange(3), counts))


@given(labels=label_sets(), seed=st.integers(0, 2**32))
def test_every_image_is_in_one_split_and_every_class_has_its_share(labels: np.ndarray, seed: int) -> None:
    splits = split(labels, seed)
    assert list(splits) == ["train", "val", "test"]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(len(labels)))
    for label in range(3):
        total = (labels == label).sum()
        for name, fraction in FRACTIONS.items():
            count = (labels[splits[name]] == label).sum()
            assert count >= 1
            assert abs(count - fraction * total) <= max(0.5, 1 - fraction * total)


@given(labels=label_sets(), seed=st.integers(0, 2**32))
def test_the_seed_determines_the_split(labels: np.ndarray, seed: int) -> None:
    for name, rows in split(labels, seed).items():
        np.testing.assert_array_equal(rows, split(labels, seed)[name])


def test_another_seed_gives_another_split() -> None:
    labels = np.repeat(np.arange(3), 40)
    assert not np.array_equal(split(labels, 0)["test"], split(labels, 1)["test"])


@pytest.mark.parametrize(("count", "absent"), [(0, "train"), (1, "val"), (2, "test")])
def test_a_class_that_is_too_small_is_named_with_the_split(count: int, absent: str) -> None:
    labels = np.repeat([0, 1, 2], [10, count, 10])
    with pytest.raises(UserError, match=f"class 'bee' has {count} usable images.*the split '{absent}' would hold none"):
        split(labels)


def test_fractions_that_leave_nothing_to_train_on_are_an_error() -> None:
    with pytest.raises(UserError, match=r"class 'ant' has 3 usable images.*'train'"):
        stratified_split(np.zeros(3, dtype=int), ("ant",), {"val": 0.4, "test": 0.55}, np.random.default_rng(0))


pictures = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(CLASSES)), max_size=30)


@given(images=pictures)
def test_of_identical_pictures_the_first_stays_unless_their_classes_disagree(images: list[tuple[str, str]]) -> None:
    hashes, names = [h for h, _ in images], [n for _, n in images]
    paths = [f"{i}.png" for i in range(len(images))]
    kept, removed = without_duplicates(np.arange(len(images)), hashes, paths, names)
    expected = []
    for i, picture in enumerate(hashes):
        twins = [j for j, other in enumerate(hashes) if other == picture]
        if len({names[j] for j in twins}) == 1 and i == twins[0]:
            expected.append(i)
    assert kept.tolist() == expected
    assert sorted([*kept.tolist(), *removed]) == list(range(len(images)))
    for row, (kind, reason) in removed.items():
        twin = int(reason.rsplit(" ", 1)[1].removesuffix(".png"))
        assert twin != row
        assert hashes[twin] == hashes[row]
        assert ("duplicate of" in reason) == (kind == "duplicate") == (names[twin] == names[row])


@given(images=pictures, cut=st.integers(0, 30))
def test_no_picture_is_shared_afterwards(images: list[tuple[str, str]], cut: int) -> None:
    hashes = [h for h, _ in images]
    paths = [f"{i}.png" for i in range(len(images))]
    here, there = np.arange(min(cut, len(images))), np.arange(min(cut, len(images)), len(images))
    kept, removed = without_shared(here, {"test": there}, hashes, paths)
    elsewhere = {hashes[i] for i in there}
    assert kept.tolist() == [i for i in here if hashes[i] not in elsewhere]
    assert all(kind == "duplicate" and "also in the split 'test', as " in reason for kind, reason in removed.values())
