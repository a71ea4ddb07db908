"""The report page of a finished run, looked at in Chromium as a file: whole, quiet, legible at any width."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.screenshots import browser
from components.evaluation.ood import registry
from pipelines.metrics import compared

pytestmark = pytest.mark.e2e

VARIANTS = ("hybrid", "contrastive")


@pytest.fixture(scope="module")
def page(finished) -> Iterator[Any]:
    """The page, loaded; `page.asked` are the addresses that it asked for, `page.said` what the console shows."""
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on the PATH (Debian's package chromium)")
    with browser(width=1280, height=900) as page:
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto((finished.root / "outputs/compare/report.html").as_uri())
        yield page


def test_it_asks_for_nothing_and_complains_about_nothing(page):
    [own, *others] = page.asked
    assert own.startswith("file://")
    assert [address[:40] for address in others if not address.startswith("data:image/")] == []
    assert page.said == []


def test_every_image_loads(page):
    sizes = page.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth])")
    assert len(sizes) > 50
    assert all(complete and width > 0 for complete, width in sizes)
    assert page.evaluate("getComputedStyle(document.querySelector('img.pixels')).imageRendering") == "pixelated"


def test_every_variant_with_its_numbers(page, finished):
    numbers = json.loads((finished.root / "outputs/compare/metrics.json").read_text())
    best = json.loads((finished.root / "outputs/compare/results.json").read_text())["constants"]["best"]
    header, *rows = page.locator("#comparison table.measures tr:not(.group)").all()
    variants = [name for name in header.inner_text().split() if name in VARIANTS]
    assert variants[0] == best
    assert set(variants) == set(VARIANTS)
    titles = [row.locator("th").inner_text().splitlines()[0].rstrip(" ↑↓") for row in rows]
    cells = dict(zip(titles, (row.locator("td").all_inner_texts() for row in rows), strict=True))
    measured = [column for column in compared() if any(column.name in numbers[name] for name in variants)]
    assert {column.title for column in measured} == set(cells)
    for column in measured:
        for variant, text in zip(variants, cells[column.title][:2], strict=True):
            value = numbers[variant].get(column.name)
            assert text.split()[0] == ("–" if value is None else f"{value:{column.form}}"), column.name
    for variant in VARIANTS:
        section = page.locator(f"#variant-{variant}")
        named = section.locator("table.detectors tbody th").all_inner_texts()
        likelihood = ["nll"] if variant == "hybrid" else []
        found = [next(name for name in registry.names() if text.split()[0] == name) for text in named]
        assert sorted(found) == sorted(["mahalanobis", "knn", "energy", "fused", *likelihood])
        assert section.locator("details[open] .pictures li").count() == 16
        assert section.get_by_alt_text(f"Images that {variant} drew").count() == len(likelihood)


def test_what_became_of_the_champion(page, finished):
    said = (finished.root.parent / "repro.log").read_text()
    told = next(line for line in said.splitlines() if line.startswith("Champion of gcrl is now version"))
    assert told in " ".join(page.locator("#glance").inner_text().split())


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_any_width(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_is_dark_for_those_who_want_it(page):
    def brightness() -> int:
        return page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")

    page.emulate_media(color_scheme="dark")
    assert brightness() < 60
    page.emulate_media(color_scheme="light")
    assert brightness() > 200


def test_links_inside_lead_somewhere(page):
    targets = page.evaluate("[...document.querySelectorAll('a')].map(link => link.getAttribute('href'))")
    assert len(targets) >= 7 + len(VARIANTS)
    assert all(page.locator(f"[id='{target.removeprefix('#')}']").count() == 1 for target in targets)
