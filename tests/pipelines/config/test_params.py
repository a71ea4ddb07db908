import dataclasses
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.errors import ConfigError
from components.objectives.config import VariantConfig
from components.objectives.contrastive.moco import MoCoConfig
from components.objectives.contrastive.nt_xent import NTXentConfig
from pipelines.config.params import load_params

ROOT = Path(__file__).parents[3]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


def content(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def test_what_is_not_given_has_its_default(load):
    params = load()
    assert params.training.optimizer == "muon"
    assert params.variant("hybrid").contrastive.temperature == 0.2
    assert params.ood.detectors == ("knn", "fused")
    assert params.data.test is None


def test_a_term_has_the_keys_of_its_name(load):
    term = load({"variants.hybrid.contrastive": {"name": "moco", "queue_size": 64}}).variant("hybrid").contrastive
    assert term == MoCoConfig(queue_size=64)
    assert load({"variants.hybrid.contrastive": {"temperature": 0.3}}).variants == {
        "hybrid": VariantConfig(1, 1, contrastive=NTXentConfig(temperature=0.3))
    }


def test_lists_become_tuples(load):
    params = load({"probe.k": [1, 3], "data.labelled": {"parquet": ["a.parquet", "b.parquet"]}})
    assert params.probe.k == (1, 3)
    assert params.data.labelled.parquet == ("a.parquet", "b.parquet")


def test_an_unknown_variant(load):
    assert load().variant("hybrid").w_con == 1
    with pytest.raises(
        ConfigError, match=r"unknown variant 'hybird', did you mean 'hybrid'. params\.yaml has: hybrid\."
    ):
        load().variant("hybird")


def test_a_student_is_as_the_variants_where_it_does_not_say_otherwise(load):
    small = {"teacher": "hybrid", "crd": {}, "kd": {"weight": 0.5}, "model": {"width": 64, "encoder_layers": 2}}
    large = {"teacher": "hybrid", "regression": {}, "model": {"width": 256}, "training": {"steps": 300}}
    params = load({"students": {"small": small, "large": large}})
    assert params.encoders == ("hybrid", "small", "large")
    assert params.encoder("small") == params.student("small")
    assert params.encoder("hybrid") == params.variant("hybrid")
    assert params.student("small").objective == "0.8 · crd + 0.5 · kd"
    assert params.model_of("small") == dataclasses.replace(params.model, width=64, encoder_layers=2)
    assert params.model_of("large").width == 256
    assert params.model_of("hybrid") == params.model
    assert params.training_of("large") == dataclasses.replace(params.training, steps=300)
    assert params.training_of("small") == params.training_of("hybrid") == params.training
    for find in (params.encoder, params.variant):
        with pytest.raises(ConfigError, match="unknown variant 'smal'"):
            find("smal")
    with pytest.raises(ConfigError, match=r"unknown student 'smal', did you mean 'small'. params\.yaml has: small"):
        params.student("smal")


def test_students_may_be_none_but_not_missing(load):
    assert load().students == {}
    with pytest.raises(ConfigError, match="students: missing; this key is required"):
        load({"students": ...})
    with pytest.raises(ConfigError, match=r"unknown student 'hybrid'. params\.yaml has none"):
        load().student("hybrid")


def test_the_projects_own_configuration_is_valid():
    assert list(load_params(ROOT / "params.yaml").variants) == ["hybrid", "generative", "contrastive"]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid_and_says_what_it_costs_and_gives(preset):
    load_params(preset)
    head = [line for line in preset.read_text().splitlines() if line.startswith("#")]
    for told in ("costs", "gives"):
        assert any(told in line for line in head), told


def test_the_default_is_the_preset_for_digits():
    """Except for comments, so that editing params.yaml and forgetting the preset is noticed."""
    assert content(ROOT / "params.yaml") == content(ROOT / "presets" / "digits-cpu.yaml")


def test_images_that_chose_the_model_cannot_certify_it(load):
    assert load({"certificate": {"hybrid": {}}}).certificate["hybrid"].split == "val"
    with pytest.raises(ConfigError, match=r"certificate\.hybrid\.split: training\.keep best_knn chooses"):
        load({"certificate": {"hybrid": {}}, "training.keep": "best_knn"})
    load({"certificate": {"hybrid": {"split": "test"}}, "training.keep": "best_knn"})
