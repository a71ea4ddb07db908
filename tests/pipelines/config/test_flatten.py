"""Nested mappings by dotted keys."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.flatten import flat

NAMES = st.text("abc", min_size=1, max_size=2)
NESTED = st.recursive(st.integers() | st.none() | st.just({}), lambda inner: st.dictionaries(NAMES, inner, max_size=3))


def test_sections_become_dots_and_an_empty_one_is_a_value():
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2], "e": {}}


@given(st.dictionaries(NAMES, NESTED, max_size=3))
def test_every_key_leads_to_its_value(values):
    found = flat(values)
    for dotted, value in found.items():
        place = values
        for key in dotted.split("."):
            place = place[key]
        assert place == value

    def leaves(nested: object) -> int:
        return sum(map(leaves, nested.values())) if isinstance(nested, dict) and nested else 1

    assert len(found) == (leaves(values) if values else 0)
