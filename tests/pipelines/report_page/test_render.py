from dataclasses import replace
from html.parser import HTMLParser

import pytest

from components.distillation.config import KdConfig, StudentConfig
from components.plotting.comparison import comparison_figure
from pipelines.config.params import GateConfig
from pipelines.report_page.render import draw_figures, write_page

GATE = GateConfig(score=("linear_accuracy",), minimum={"linear_accuracy": 0.9})
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Elements of a page, its text, and whether all tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += " ".join(data.split()) + " " if self.open[-1:] != ["style"] else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page_of(tmp_path, prepared):
    """`page_of(reports, prepared, registry)` writes a page; returns it as it was read back."""

    def page(reports, prepared=prepared, registry="", gate=GATE) -> Page:
        folder = tmp_path / "compare"
        folder.mkdir(exist_ok=True)
        names = [report.name for report in reports]
        comparison_figure({"accuracy": dict.fromkeys(names, 0.5)}, {"accuracy"}, folder / "comparison.png")
        draw_figures(reports, folder)
        write_page(folder, reports, prepared, gate, registry)
        return Page((folder / "report.html").read_text())

    return page


def test_students_stand_beside_variants(reports, make_report, page_of):
    assert "student" not in page_of(reports).text
    student = make_report(
        2, "small", {"linear_accuracy": 0.94}, likelihood=False, student=StudentConfig("hybrid", kd=KdConfig())
    )
    page = page_of([*reports, student])
    assert "What 3 encoders learned from" in page.text
    assert "they learn from. A student, which learns from the encoder of another: small. All results" in page.text
    assert "Learns from hybrid, its teacher: " in page.text
    assert page.text.count("860,592 parameters") == 3
    assert "variant-small" in [attributes.get("id") for _, attributes in page.elements]


def test_it_is_whole_and_asks_for_nothing_from_elsewhere(reports, page_of):
    page = page_of(reports)
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    links = [attributes["href"] for attributes in page.all("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(identifiers)
    for attributes in page.all("img"):
        assert attributes["src"].startswith("data:image/")
        assert len(attributes["alt"]) > 5
    assert {tag for tag, _ in page.elements} & {"script", "iframe", "object"} == set()
    [policy] = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy


def test_the_best_variant_comes_first_and_every_number_is_there(reports, page_of):
    page = page_of(reports, registry="Champion of gcrl is now version 3.")
    cards = [a["id"] for tag, a in page.elements if tag == "section" and a.get("id", "").startswith("variant-")]
    assert cards == ["variant-contrastive", "variant-hybrid"]
    for told in ("96.0%", "95.1%", "1.500", "61.1%", "± 1.2%", "0.850 to 0.950", "4.1%", "1,200", "f" * 64):
        assert told in page.text, told
    for told in ("bits_per_dim is missing", "Champion of gcrl is now version 3.", "2027-01-15 08:01 UTC", "0123456789"):
        assert told in page.text, told
    assert "contrastive has no decoder" in page.text
    assert "Which one is best was decided by them" in page.text
    assert "somebody" not in page.text


def test_same_reports_same_bytes(reports, page_of, tmp_path):
    page_of(reports)
    first = (tmp_path / "compare/report.html").read_bytes()
    page_of(reports)
    assert (tmp_path / "compare/report.html").read_bytes() == first


def test_layers_are_drawn_where_they_are_known(reports, make_report, page_of):
    assert "Layer by layer" not in page_of(reports).text
    page = page_of([*reports, make_report(2, "layered", {"linear_accuracy": 0.5}, layers=True)])
    assert "Layer by layer" in page.text
    assert "92.5%" in page.text


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_one_variant_alone(make_report, page_of, channels, size):
    alone = make_report(0, "alone", {"linear_accuracy": 0.9}, likelihood=False, channels=channels, size=size)
    page = page_of([alone], gate=GateConfig(score=("linear_accuracy",)))
    assert "What alone learned from digits" in page.text
    assert "90.0%" in page.text
    assert "(best)" not in page.text
    assert "Which one is best" not in page.text


def test_names_of_users_are_text(make_report, page_of, prepared):
    evil = '<script>alert("x")</script>'
    report = make_report(0, "hybrid", {"linear_accuracy": 0.9}, unmet=(evil,))
    named = replace(prepared, meta={**prepared.meta, "sources": {"labelled": {"name": evil}}})
    page = page_of([report], named, registry=evil)
    assert page.all("script") == []
    assert page.text.count(evil) >= 3


def test_views_that_were_cut_out_of_larger_images_are_told(reports, page_of, prepared):
    finer = replace(prepared, meta=prepared.meta | {"finer": {"size": 96}})
    told = "8 × 8 pixels, grey (training cuts its views out of 96 × 96), 2 classes"
    assert told in page_of(reports[:1], finer).text
    assert "training cuts" not in page_of(reports[:1]).text
