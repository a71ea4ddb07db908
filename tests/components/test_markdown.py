import csv
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from components.markdown import literal, literals, table

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PLACES = {
    "a paragraph": "{}",
    "the middle of one": "before {} after",
    "bold": "**{}**",
    "a heading": "# {}",
    "a list": "- {}",
    "a link": "[{}](https://example.org)",
}
TRICKY = [
    *("a|b", "<b>x</b>", "<script>alert(1)</script>", "[a](http://b.c)", "![a](b)", "`x`", "``", "# x", "#", "- x"),
    *("1. x", "12) x", "+", "---", "===", ":-:", "> x", "*x*", "_x_", "__init__", "~~x~~", "&amp;", "&#65;", "a\\"),
    *("\\|", "\\", "x\\`", " x ", "  ", "\u3000x\u00a0", "$1_$5", "<http://a.b>", "a_b_c", "[x]: /y", "![", "\u2028"),
    *("日本", "🐈", "e\u0301", "<!-- x -->", "a  b", "\n", "a\nb", "# a\n- b", "\t x", "x\x1b[31m", "\udcff", "\x85x"),
]
NAMES = st.text() | st.sampled_from(TRICKY) | st.text(alphabet="\\`*_{}[]()<>#+-=.:!|~&$^'\"1a \n\t/;", max_size=12)


def shown(name: str) -> str:
    """As Python writes what cannot be seen; all else as it is."""
    unseen = ("Cc", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in unseen else c for c in name)


def rendered(markdown: str) -> tuple[str, list[str]]:
    """The text that a reader sees, and the kinds of all inline elements but text."""
    text, kinds = "", []
    for token in MARKDOWN.parse(markdown):
        for child in token.children or ([token] if token.content else []):
            text += child.content
            kinds += [child.type] if child.type not in ("text", "text_special") else []
    return text, kinds


@pytest.mark.parametrize("place", PLACES)
@given(name=NAMES.filter(bool))
def test_a_name_is_shown_as_it_is_written(place, name):
    template = PLACES[place]
    expected, kinds = rendered(template.format("NAME"))
    assert rendered(template.format(literal(name))) == (expected.replace("NAME", shown(name)), kinds)
    blocks = [token.type for token in MARKDOWN.parse(template.format("NAME"))]
    assert [token.type for token in MARKDOWN.parse(template.format(literal(name)))] == blocks


@given(st.lists(st.tuples(NAMES, NAMES), min_size=1))
def test_a_table_has_its_cells(rows):
    written = table(["one", "two"], [[literal(a), literal(b)] for a, b in rows], "lr")
    tokens = MARKDOWN.parse(written)
    cells = [token.content for token, opened in zip(tokens[1:], tokens, strict=False) if opened.type == "td_open"]
    texts = ["".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"]
    assert texts == ["one", "two", *(shown(name) for row in rows for name in row)]
    assert len(cells) == 2 * len(rows)
    assert rendered(written)[1] == []


@given(NAMES)
def test_it_is_one_line_that_can_be_written_to_a_file(name):
    assert len(f"x{literal(name)}x".splitlines()) == 1
    literal(name).encode()


def test_names_that_read_well_are_left_alone():
    for name in ("cat", "far-one", "1.5", "sea lion", "日本", "v2.0, beta"):
        assert literal(name) == name


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])), min_size=1))
def test_a_list_of_names_can_be_told_apart(names):
    text, kinds = rendered(f"Classes: {literals(names)}.")
    listed = text.removeprefix("Classes: ").removesuffix(".")
    assert [*csv.reader([listed], skipinitialspace=True)] == [names]
    assert kinds == []
