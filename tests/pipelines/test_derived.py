"""Documents and presets say what the declarations say."""

import pytest

from pipelines.config.params import load_params
from pipelines.derived import PARTS, ZOO, derived


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_derived_is_up_to_date(name):
    path, text = derived(name)
    assert path.read_text() == text, f"{path}: python -m pipelines derive writes it anew"


def test_the_presets_zoo_leaves_out_what_its_images_cannot_serve():
    named = {term.name for variant in load_params(ZOO).variants.values() for term in variant.terms}
    assert "cmc" not in named  # it splits colours
    assert {"moco", "vae", "rotation"} <= named
