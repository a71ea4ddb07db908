import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from components.evaluation.features.embedding_map import OOD_IMAGES, TEST_IMAGES, Mapped, embedding_map
from components.plotting.embedding_map import map_figure


def groups(n: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Three classes, and an OOD set, each around a direction of its own in 16 dimensions; the classes of test (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    noise = 0.2 * rng.normal(size=(2, n, 16))
    return {"test": 3 * np.eye(16)[labels] + noise[0], "strange": 3 * np.eye(16)[[7] * n] + noise[1]}, labels


@pytest.mark.trains
def test_what_is_similar_lies_together():
    features, labels = groups(90)
    places = embedding_map(features, seed=0)
    positions = np.concatenate([places["test"].positions, places["strange"].positions])
    group = np.concatenate([labels[places["test"].rows], np.full(90, 3)])
    assert KNeighborsClassifier(6).fit(positions, group).score(positions, group) > 0.95


def test_length_of_the_features_does_not_matter():
    features, _ = groups(20)
    longer = {name: values * 2.0 ** np.arange(20)[:, None] for name, values in features.items()}  # without rounding
    first, second = embedding_map(features, seed=0), embedding_map(longer, seed=0)
    np.testing.assert_array_equal(first["test"].positions, second["test"].positions)


def test_a_map_is_the_same_every_time():
    features, _ = groups(40)
    first, again = (embedding_map(features, seed=0) for _ in range(2))
    for name in features:
        np.testing.assert_array_equal(first[name].positions, again[name].positions)


def test_the_number_of_images_is_bounded(monkeypatch):
    monkeypatch.setattr("components.evaluation.features.embedding_map.ITERATIONS", 250)  # the least that t-SNE takes
    features, _ = groups(400)
    places = embedding_map({**features, "other": features["strange"]}, seed=0)
    assert {name: len(place.rows) for name, place in places.items()} == {
        "test": TEST_IMAGES,
        "strange": OOD_IMAGES // 2,
        "other": OOD_IMAGES // 2,
    }
    for place in places.values():
        assert place.positions.shape == (len(place.rows), 2)
        assert (np.diff(place.rows) > 0).all()
        assert place.rows.max() < 400
    others = embedding_map(features, seed=1)
    assert (others["test"].rows != places["test"].rows).any()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_images(n):
    places = embedding_map({name: values[:n] for name, values in groups(9)[0].items()}, seed=0)
    assert all(np.isfinite(place.positions).all() for place in places.values())


def test_collapsed_features_are_one_point():
    places = embedding_map({"test": np.ones((30, 4)), "strange": np.ones((30, 4))}, seed=0)
    assert not places["test"].positions.any()


@pytest.mark.parametrize("classes", [3, 25, 200])
def test_the_figure_shows_every_set_and_is_the_same_every_time(tmp_path, classes):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % classes
    sizes = {"test": 400, **dict.fromkeys("abcdefgh", 20)}
    places = {name: Mapped(np.arange(n), rng.normal(size=(n, 2))) for name, n in sizes.items()}
    names = [f"class {i}" for i in range(classes)]
    map_figure(places, labels, names, "hybrid", tmp_path / "map.png")
    map_figure(places, labels, names, "hybrid", tmp_path / "again.png")
    assert (tmp_path / "map.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    image = Image.open(tmp_path / "map.png").convert("RGB")
    assert len(image.getcolors(image.width * image.height)) > 10 * min(classes, 10)
