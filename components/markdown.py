"""Text and tables in Markdown, where names that come from people and files are shown as they are written."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # not every renderer takes these after a backslash
SPECIAL = "\\`*_[]#|~$"
# a list, the line under a heading, the line under a table's titles
STARTS_A_BLOCK = re.compile(r"^([-+=:]|\d+[.)](?=\s|$))")
UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, halves of characters, line separators


def literal(text: object) -> str:
    """Markdown, on one line, that is rendered as `text`: in a paragraph, a heading, a list or a table's cell.

    Characters that no page shows are written as Python writes them: a line break as \\n.
    """
    text = str(text)
    inner = range(len(text) - len(text.lstrip()), len(text.rstrip()))  # spaces around it would be dropped
    escaped = "".join(_escaped(char, edge=i not in inner) for i, char in enumerate(text))
    return STARTS_A_BLOCK.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escaped)


def literals(names: Iterable[object]) -> str:
    """Names with commas between them. One that holds a comma or a quotation mark stands in quotation marks."""
    return ", ".join(literal(_quoted(str(name))) for name in names)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A table of cells that are Markdown. `align`: l or r for each column, l where it ends early."""
    line = "".join("---:|" if side == "r" else "---|" for side in align.ljust(len(titles), "l"))
    return "\n".join([f"| {' | '.join(titles)} |", f"|{line}", *(f"| {' | '.join(row)} |" for row in rows)])


def _escaped(char: str, edge: bool) -> str:
    if unicodedata.category(char) in UNSEEN:
        return f"\\{char.encode('unicode_escape').decode()}"
    if edge:
        return f"&#{ord(char)};"
    return ENTITIES.get(char) or (f"\\{char}" if char in SPECIAL else char)


def _quoted(name: str) -> str:
    plain = name == name.strip() != "" and not {",", '"'} & {*name}
    return name if plain else '"' + name.replace('"', '""') + '"'
