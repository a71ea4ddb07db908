import warnings

import matplotlib.text
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.features.embedding_map import Mapped
from components.plotting.embedding_map import map_figure
from components.plotting.probes import confusion_matrix
from components.plotting.style import BLUE, GREEN, ORANGE, OTHERS, VARIANTS, figure, variant_colours

NAMES = st.lists(st.text(min_size=1), unique=True, max_size=8)


def test_the_default_variants_have_their_own():
    assert variant_colours(["contrastive", "hybrid", "generative"]) == {
        "contrastive": GREEN,
        "hybrid": BLUE,
        "generative": ORANGE,
    }


@given(NAMES)
def test_no_two_share_one_while_there_are_others(names):
    colours = variant_colours([*names, *(name for name in VARIANTS if name not in names)])
    others = [colours[name] for name in names if name not in VARIANTS]
    assert len(set(others)) == min(len(others), len(OTHERS))
    assert set(others).isdisjoint(VARIANTS.values())


@given(NAMES, st.randoms())
def test_neither_order_nor_the_default_variants_change_them(names, random):
    colours = variant_colours(names)
    shuffled = random.sample(names, len(names))
    assert variant_colours(shuffled) == colours
    assert list(variant_colours(shuffled)) == shuffled
    assert {name: variant_colours([*VARIANTS, *names])[name] for name in names} == colours


@pytest.mark.parametrize(("name", "colour"), [("masked", OTHERS[2]), ("supcon", OTHERS[1])])
def test_a_name_has_its_colour_in_every_process(name, colour):
    assert variant_colours([name]) == {name: colour}


ODD = ["$1_$5", "$5-$10", r"\$\frac{", "$", "_a", "日本", "🐈", "a\nb", "\x1b", "^{", "%", "e\u0301"]


@pytest.fixture
def drawn(monkeypatch):
    """All text that is drawn while the test runs, and whether it was set as a formula."""
    texts: list[tuple[str, object]] = []
    original = matplotlib.text.Text._preprocess_math

    def watched(text, string):
        texts.append(original(text, string))
        return texts[-1]

    monkeypatch.setattr(matplotlib.text.Text, "_preprocess_math", watched)
    return texts


@pytest.mark.parametrize("name", ODD)
def test_names_are_drawn_as_they_are_written(drawn, tmp_path, name):
    classes = [name, f"{name}{name}"]
    places = {"test": Mapped(np.arange(4), np.eye(4, 2)), "far": Mapped(np.arange(2), np.ones((2, 2)))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion_matrix(np.eye(2, dtype=int), classes, tmp_path / "a.png")
        map_figure(places, np.array([0, 1, 0, 1]), classes, name, tmp_path / "b.png")
    assert not any(formula for _, formula in drawn)
    assert {line for word in classes for line in word.split("\n")} <= {text for text, _ in drawn}


@pytest.mark.parametrize("upper", [3, 1e6])
def test_a_logarithmic_axis_has_numbers_that_can_be_read(drawn, tmp_path, upper):
    with figure(tmp_path / "a.png", 4, 3) as canvas:
        axes = canvas.add_subplot()
        axes.set_xscale("log")
        axes.plot([1, upper], [0, 1])
    shown = {text for text, _ in drawn if text}
    assert {"1", "2" if upper == 3 else "10"} <= shown
    assert not [text for text in shown if "$" in text]
