import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "mlflow" / "README.md"]
PATH = re.compile(r"`((?:benchmarks|components|docs|mlflow|pipelines|presets|requirements|studies|tests)/[\w./-]+)")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    links = [page.parent / link for link in LINK.findall(text) if "://" not in link]
    paths = [ROOT / path.rstrip(".") for path in PATH.findall(text)]
    made = ("mlruns",)  # by a run
    assert [str(p) for p in [*links, *paths] if not p.exists() and not set(made) & set(p.parts)] == []


@pytest.mark.parametrize("page", (ROOT / "docs").glob("*.md"), ids=lambda page: page.name)
def test_a_table_or_list_begins_after_a_blank_line(page: Path) -> None:
    """GitHub shows it without one, the site does not."""
    text = re.sub(r"^```.*?^```$", "```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    begins = re.compile(r"\||[-*] |\d+\. ")
    pairs = zip(text.splitlines(), text.splitlines()[1:], strict=False)
    swallowed = [b for a, b in pairs if begins.match(b) and a and not begins.match(a) and a[0] not in " #<"]
    assert swallowed == []
