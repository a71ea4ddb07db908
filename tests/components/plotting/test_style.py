import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.plotting.style import BLUE, GREEN, ORANGE, OTHERS, VARIANTS, variant_colours

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
