"""From a study file to study.json."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.data.prepare import prepare
from components.errors import ConfigError, UserError
from components.objectives.registry import CONTRASTIVE, GENERATIVE
from pipelines.config.params import load_params
from pipelines.experiments.plan import Plan, changed
from pipelines.experiments.study_file import make_plan

ROOT = Path(__file__).parents[3]
MOCO = {"name": "moco", "queue_size": 64}
NOT_ON_GREY_IMAGES = {"cmc"}  # it splits colours


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_study_of_the_project_is_valid_and_says_what_it_is(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = make_plan(path, tmp_path)
    assert plan.models
    assert path.read_text().startswith(f"# {path.stem}: ")
    assert Plan.open(tmp_path) == plan
    assert {model: plan.params(model, 7).seed for model in plan.models} == dict.fromkeys(plan.models, 7)


def test_a_model_is_a_variant_with_settings_of_its_own(write_study, tmp_path):
    models = {"hybrid": {}, "deep": {"variant": "hybrid", "model.encoder_layers": 3, "variants.hybrid.w_gen": 0.5}}
    file = write_study(models=models, overrides={"training.seconds": 60})
    make_plan(file, tmp_path)
    plan = Plan.open(tmp_path)
    base, deep = plan.params("hybrid", 1), plan.params("deep", 2)
    assert (base.seed, base.model.encoder_layers, base.training.seconds) == (1, 1, 60)
    assert (deep.seed, deep.model.encoder_layers, deep.training.seconds) == (2, 3, 60)
    assert (list(base.variants), list(deep.variants)) == (["hybrid"], ["deep"])
    assert (base.variant("hybrid").w_gen, deep.variant("deep").w_gen) == (1, 0.5)
    assert "mlflow.source.git.commit" in plan.source


def test_without_models_every_variant_is_one(write_study, tmp_path):
    assert list(make_plan(write_study(models={}), tmp_path).models) == ["hybrid", "contrastive"]


def test_overrides_may_add_a_variant(write_study, tmp_path):
    overrides = {"variants.moco": {"w_gen": 0.0, "w_con": 1.0, "contrastive": MOCO}, "variants.hybrid.w_con": 2.0}
    plan = make_plan(write_study(models={}, overrides=overrides), tmp_path)
    assert list(plan.models) == ["hybrid", "contrastive", "moco"]
    assert plan.params("moco", 0).variant("moco").contrastive.name == "moco"
    assert plan.params("hybrid", 0).variant("hybrid").w_con == 2


def test_the_variants_may_come_from_another_params_file(write_study, tmp_path):
    """With everything else, and what belongs to variants, as in the first."""
    other = write_study().parent / "params.yaml"
    yaml = YAML(typ="safe")
    raw = yaml.load(other)
    raw["variants"] = {"simclr": {"w_gen": 0.0, "w_con": 1.0}, "moco": {"w_gen": 0, "w_con": 1, "contrastive": MOCO}}
    raw["model"]["width"] = 64
    yaml.dump(raw, other)
    params = write_study(models={}).parent / "params.yaml"
    raw = yaml.load(params)
    raw |= {"students": {"small": {"teacher": "hybrid", "regression": {}}}, "certificate": {"hybrid": {}}}
    yaml.dump(raw, params)
    file = write_study(models={}, params=str(params), variants=str(other))
    plan = make_plan(file, tmp_path)
    assert set(plan.models) == {"simclr", "moco"}
    moco = plan.params("moco", 1)
    assert (moco.variant("moco").contrastive.name, moco.model.width) == ("moco", 16)
    assert (moco.students, moco.certificate) == ({}, {})
    with pytest.raises(ConfigError, match=r"nowhere.yaml: not found"):
        make_plan(write_study(variants="nowhere.yaml"), tmp_path / "other")


def test_the_zoo_is_every_term_once(tmp_path, monkeypatch):
    """On the data and with the model of params.yaml; a term that is left out is named here."""
    monkeypatch.chdir(ROOT)
    plan = make_plan(Path("studies/zoo.yaml"), tmp_path)
    variants = [plan.params(model, 0).variant(model) for model in plan.models]
    named = {v.contrastive.name for v in variants if v.w_con} | {v.generative.name for v in variants if v.w_gen}
    assert named == (CONTRASTIVE.keys() | GENERATIVE.keys()) - NOT_ON_GREY_IMAGES
    data = load_params(ROOT / "params.yaml").data
    assert all(plan.params(model, 0).data == data for model in plan.models)


def test_the_zoo_of_colour_images_lacks_no_term(tmp_path, monkeypatch):
    yaml = YAML(typ="safe")
    params = yaml.load(ROOT / "params.yaml")
    params["data"]["channels"] = 3
    yaml.dump(params, tmp_path / "params.yaml")
    for folder in ("studies", "presets"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    models = make_plan(Path("studies/zoo.yaml"), tmp_path / "zoo").models
    assert {models[name]["variants"][name]["contrastive"]["name"] for name in NOT_ON_GREY_IMAGES} == NOT_ON_GREY_IMAGES


TURNED = {"augmentation.rotate_degrees": 90}
ROTATION = {"w_gen": 0.0, "w_con": 1.0, "contrastive": {"name": "rotation"}}


def test_of_all_variants_those_that_cannot_be_are_told_and_left_out(write_study, tmp_path, capsys):
    params = write_study(models={}).parent / "params.yaml"
    yaml = YAML(typ="safe")
    raw = yaml.load(params)
    raw["variants"]["turns"] = ROTATION
    other = params.with_name("other.yaml")
    yaml.dump(raw, other)
    study = {"params": str(params), "variants": str(other), "overrides": TURNED}
    assert set(make_plan(write_study(models={}, **study), tmp_path).models) == {"hybrid", "contrastive"}
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("left out: ")
    assert "models.turns: " in told
    assert "variants.turns.contrastive.name: rotation tells quarter turns apart" in told
    with pytest.raises(ConfigError, match=r"models.turns: .*rotation tells quarter turns apart"):
        make_plan(write_study(models={"hybrid": {}, "turns": {}}, **study), tmp_path / "named")
    study["overrides"] = {"training.steps": "many"}
    with pytest.raises(ConfigError, match=r"models.\w+: .*training.steps"):
        make_plan(write_study(models={}, **study), tmp_path / "none")


def test_students_of_the_params_file_are_left_out(write_study, tmp_path):
    student = {"teacher": "hybrid", "regression": {}}
    overrides = {"students.small": student}
    plan = make_plan(write_study(models={"deep": {"variant": "hybrid"}}, overrides=overrides), tmp_path)
    assert plan.params("deep", 0).students == {}
    with pytest.raises(ConfigError, match=r"models.small: 'small' is a student, no variant"):
        make_plan(write_study(models={"small": {}}, overrides=overrides), tmp_path)


def test_a_model_takes_further_changes(write_study, tmp_path):
    plan = make_plan(write_study(), tmp_path)
    params = plan.params("hybrid", 0, {"model.width": 32, "variants.hybrid.w_con": 2.0}, name="other")
    assert (params.model.width, params.variant("other").w_con) == (32, 2.0)
    with pytest.raises(ConfigError, match=r"model.widht: unknown key, did you mean 'width'"):
        plan.params("hybrid", 0, {"model.widht": 32})
    with pytest.raises(ConfigError, match=r"training.steps: expected an integer, found 'many'"):
        plan.params("hybrid", 0, {"training.steps": "many"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": []}, "small.yaml: seeds must list at least one seed"),
        ({"seed": 1}, "small.yaml: seed: unknown key, did you mean 'seeds'"),
        ({"peak_tflops": 0}, "peak_tflops must be positive"),
        ({"models": {"deep": {}}}, "models.deep: unknown variant 'deep'"),
        ({"models": {"hybrid": {"model.widht": 1}}}, "models.hybrid: .*model.widht: unknown key, did you mean 'width'"),
        ({"models": {"Hybrid": {"variant": "hybrid"}}}, "models.Hybrid: .*a variant's name is a folder's name"),
        (
            {"models": {"hybrid": {}, "wide": {"variant": "hybrid", "data.val_fraction": 0.2}}},
            "its `data` differs from",
        ),
        ({"overrides": {"variants": 5}}, "models.hybrid: .*variants: "),
        ({"overrides": {"training.steps": "many"}}, "models.hybrid: .*training.steps: expected an integer"),
    ],
)
def test_a_mistake_names_the_file_and_the_model_and_nothing_is_written(write_study, tmp_path, changes, told):
    with pytest.raises(ConfigError, match=told):
        make_plan(write_study(**changes), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_prepared_images_are_taken_along_if_they_are_what_the_models_expect(write_study, tmp_path):
    file = write_study()
    params = load_params(file.parent / "params.yaml")
    prepare(params.data, 0, tmp_path / "data", 64)
    make_plan(file, tmp_path / "study", tmp_path / "data")
    taken = {path.name: path.read_bytes() for path in (tmp_path / "study/data/prepared").iterdir()}
    assert taken == {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}

    other = write_study(overrides={"data.ood": {"shuffled": {"distance": "far", "shuffled_test": True}}} | GATE)
    with pytest.raises(ConfigError, match=r"prepared with other parameters.*OOD sets held-out, shuffled"):
        make_plan(other, tmp_path / "other", tmp_path / "data")
    with pytest.raises(UserError, match=r"no prepared data set there"):
        make_plan(file, tmp_path / "other", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"split_by_seed: each seed prepares the images anew"):
        make_plan(write_study(split_by_seed=True), tmp_path / "other", tmp_path / "data")
    assert not (tmp_path / "other").exists()


GATE = {"gate.score": ["linear_accuracy", "far_ood_auroc"]}


def test_what_is_no_plan_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no study.json there. `python -m pipelines.experiments plan FILE"):
        Plan.open(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps({"name": "x", "sedes": [1]}))
    with pytest.raises(ConfigError, match=r"study.json: sedes: unknown key, did you mean 'seeds'"):
        Plan.open(tmp_path)


def test_changes_are_made_to_a_copy():
    raw = {"a": {"b": 1}, "c": 2}
    assert changed(raw, {"a.b": 3, "d.e": 4}) == {"a": {"b": 3}, "c": 2, "d": {"e": 4}}
    assert raw == {"a": {"b": 1}, "c": 2}
    with pytest.raises(ConfigError, match=r"c.x: c is a value"):
        changed(raw, {"c.x": 1})
