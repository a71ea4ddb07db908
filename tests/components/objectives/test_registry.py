"""What a term declares, and that nothing but its package makes it known."""

import runpy
import sys

import pytest

from components.dataclass_reader import read_dataclass
from components.objectives import registry
from components.objectives.base import ContrastiveTerm, GenerativeTerm
from components.objectives.config import VariantConfig
from components.objectives.registry import CONTRASTIVE, GENERATIVE, ROOMS, zoo
from components.objectives.settings import Task

EVERY = [*CONTRASTIVE.values(), *GENERATIVE.values()]
every_term = pytest.mark.parametrize("declared", EVERY, ids=lambda declared: declared.name)
TASK = Task(side=4, image_size=16, channels=3, likelihood="palette", encoder_layers=4)


@every_term
def test_a_term_lies_in_the_room_of_its_kind(declared):
    *_, room, package = declared.__module__.split(".")
    assert (room, package) == (declared.kind, declared.name)
    assert room in ROOMS


@every_term
def test_a_term_has_words_and_papers(declared):
    words = declared.words
    cells = (words.label, words.learns, words.what, words.when, words.cost)
    assert all(text == text.strip() and text and "|" not in text and "\n" not in text for text in cells)
    assert words.papers
    assert all(address.startswith("https://") for address in words.papers.values())


@every_term
def test_a_term_names_the_class_that_computes_it(declared):
    assert issubclass(declared.term(), GenerativeTerm if declared.section == "generative" else ContrastiveTerm)


def test_the_zoo_has_every_term_as_it_can_be_trained():
    variants = {name: read_dataclass(VariantConfig, settings) for name, settings in zoo().items()}
    for variant in variants.values():
        variant.check(TASK)
    alone = {term.name for variant in variants.values() if len(variant.terms) == 1 for term in variant.terms}
    assert alone == {declared.name for declared in EVERY}
    assert {name for name, variant in variants.items() if variant.kind == "hybrid"} == set(registry.PAIRS)


@pytest.mark.parametrize(
    ("section", "settings", "told"),
    [
        ("contrastive", {"name": "moco"}, r"contrastive\.queue_size: 4096 keys, but there are only 20 images"),
        ("contrastive", {"name": "supcon"}, r"contrastive\.name: supcon learns from labels"),
        ("contrastive", {"name": "deepcluster"}, r"contrastive\.clusters: 50, but there are only 20 images"),
    ],
)
def test_what_needs_the_images_is_asked_once_they_are_known(section, settings, told):
    variant = read_dataclass(VariantConfig, {"w_gen": 0.0, "w_con": 1.0, section: settings})
    variant.check(TASK)
    with pytest.raises(ValueError, match=told):
        variant.check(
            Task(side=4, image_size=16, channels=3, likelihood="palette", encoder_layers=4, images=20, labels=False)
        )


def test_a_term_of_weight_0_is_not_asked():
    contrastive = CONTRASTIVE["dim"](blocks=(9,))
    VariantConfig(1, 0, contrastive=contrastive).check(TASK)
    with pytest.raises(ValueError, match=r"contrastive\.blocks: 9, but the encoder has 4"):
        VariantConfig(0, 1, contrastive=contrastive).check(TASK)


def test_two_terms_of_one_name_are_refused(monkeypatch, tmp_path):
    from components.objectives import contrastive

    (tmp_path / "again.py").write_text(
        "from components.objectives.contrastive.moco import MoCoConfig\n\n\nclass Again(MoCoConfig):\n    pass\n"
    )
    monkeypatch.setattr(contrastive, "__path__", [*contrastive.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "components.objectives.contrastive.again", None)  # to be forgotten
    del sys.modules["components.objectives.contrastive.again"]
    with pytest.raises(TypeError, match="another term is called moco, too"):
        runpy.run_module("components.objectives.registry")
