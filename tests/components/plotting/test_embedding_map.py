"""Names on the map stay readable."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from components.plotting.embedding_map import move_apart


def annotated(places: np.ndarray, names: list[str]) -> list[Annotation]:
    axes = Figure(figsize=(4.4, 4.9), dpi=100).add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    style = {"xytext": (0, 0), "textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 11}
    return [axes.annotate(name, tuple(place), **style) for name, place in zip(names, places, strict=True)]


def overlapping(names: list[Annotation]) -> int:
    boxes = [name.get_window_extent() for name in names]
    return sum(a.overlaps(b) for a, b in combinations(boxes, 2))


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.2])
def test_no_name_covers_another(spread):
    places = 0.5 + spread * np.random.default_rng(0).standard_normal((20, 2))
    names = annotated(places, [f"class number {i}" for i in range(20)])
    before = overlapping(names)
    move_apart(names)
    assert before > 10
    assert overlapping(names) == 0


def test_names_that_cover_nothing_stay():
    names = annotated(np.array([[0.2, 0.2], [0.8, 0.8]]), ["cat", "dog"])
    move_apart(names)
    assert [name.get_position() for name in names] == [(0, 0), (0, 0)]


def test_a_map_without_names_is_left_alone():
    move_apart([])
