import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.errors import ConfigError
from components.objectives.config import VariantConfig
from components.objectives.config_contrastive import MoCoConfig, NTXentConfig
from pipelines.config import Params, load_params

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "seed": 0,
    "data": {
        "image_size": 8,
        "channels": 1,
        "labelled": {"builtin": "digits"},
        "ood": {
            "near-one": {"distance": "near", "held_out_classes": ["4"]},
            "far-one": {"distance": "far", "shuffled_test": True},
        },
    },
    "model": {"patch_size": 2},
    "augmentation": {},
    "training": {"steps": 100, "batch_size": 16, "learning_rate": 0.01},
    "variants": {"hybrid": {"w_gen": 1, "w_con": 1}},
    "students": {},
    "embed": {},
    "probe": {},
    "ood": {"detectors": ["knn", "fused"]},
    "export": {},
    "gate": {"score": ["linear_accuracy", "near_ood_auroc", "far_ood_auroc"]},
    "tracking": {},
}  # fmt: skip
REMOVED = object()


def content(path: Path) -> Any:
    return YAML(typ="safe").load(path)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Params]:
    """Load a valid configuration with changes: load({"model.patch_size": 4}) or load(text="…")."""

    def with_changes(changes: dict[str, Any] | None = None, text: str | bytes | None = None) -> Params:
        path = tmp_path / "params.yaml"
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            return load_params(path)
        raw = copy.deepcopy(MINIMAL)
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            section = raw
            for parent in parents:
                section = section.setdefault(parent, {})
            if value is REMOVED:
                del section[last]
            else:
                section[last] = value
        with path.open("w") as file:
            YAML().dump(raw, file)
        return load_params(path)

    return with_changes


def test_what_is_not_given_has_its_default(load):
    params = load()
    assert params.training.optimizer == "muon"
    assert params.variant("hybrid").contrastive.temperature == 0.2
    assert params.ood.detectors == ("knn", "fused")
    assert params.data.test is None


def test_a_term_has_the_keys_of_its_name(load):
    term = load({"variants.hybrid.contrastive": {"name": "moco", "queue": 64}}).variant("hybrid").contrastive
    assert term == MoCoConfig(queue=64)
    assert load({"variants.hybrid.contrastive": {"temperature": 0.3}}).variants == {
        "hybrid": VariantConfig(1, 1, contrastive=NTXentConfig(temperature=0.3))
    }


def test_lists_become_tuples(load):
    params = load({"probe.k": [1, 3], "data.labelled": {"parquet": ["a.parquet", "b.parquet"]}})
    assert params.probe.k == (1, 3)
    assert params.data.labelled.parquet == ("a.parquet", "b.parquet")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sead": 1}, "sead: unknown key, did you mean 'seed'. Known keys: seed, data, model"),
        ({"model.widht": 64}, "model.widht: unknown key, did you mean 'width'. Known keys: patch_size, width"),
        ({"data.labelled.foldr": "x"}, "data.labelled.foldr: unknown key, did you mean 'folder'"),
        ({"data.pretrain": {"foldr": "x"}}, "data.pretrain.foldr: unknown key, did you mean 'folder'"),
        ({"data.ood.far-one.shufled_test": 1}, "shufled_test: unknown key, did you mean 'shuffled_test'"),
        ({"data.ood.x": {"distance": "far", "source": {"spilt": "a"}}}, "data.ood.x.source.spilt: unknown key"),
        ({"variants.hybrid.w_contrastive": 1}, "w_contrastive: unknown key, did you mean 'contrastive'"),
        ({"variants.hybrid.contrastive": {"temprature": 1}}, "contrastive.temprature: unknown key, did you mean 'tem"),
        ({"students.s": {"teacher": "hybrid", "crdd": {}}}, "students.s.crdd: unknown key, did you mean 'crd'. Known"),
        ({"students.s": {"teacher": "hybrid", "crd": {"negative": 5}}}, "crd.negative: unknown key, did you mean 'ne"),
        ({"students.s": {"teacher": "hybrid", "kd": {}, "model": {"depth": 2}}}, "students.s.model.depth: unknown key"),
        ({"certificate": {"hybrid": {"detla": 0.1}}}, "certificate.hybrid.detla: unknown key, did you mean 'delta'"),
        ({"variants.hybrid.contrastive": {"name": "moco", "momntum": 1}},
         "contrastive.momntum: unknown key, did you mean 'momentum'. Known keys: name, queue, momentum, temperature."),
        ({"variants.hybrid.contrastive": {"queue": 8}}, "contrastive.queue: unknown key. Known keys: name, temp"),
        ({"variants.hybrid.generative": {"scored_shre": 1}}, "scored_shre: unknown key, did you mean 'scored_share'"),
        ({"gate.xyzzy": 1}, "gate.xyzzy: unknown key. Known keys: score, minimum."),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(load, changes, told):
    with pytest.raises(ConfigError) as refused:
        load(changes)
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"variants.hybrid.contrastive": {"name": "nt_xnet"}}, "name: unknown value 'nt_xnet', did you mean 'nt_xent'"),
        ({"variants.hybrid.contrastive": {"name": "mocov3"}},
         "hybrid.contrastive.name: unknown value 'mocov3', did you mean 'moco_v3'. Expected 'nt_xent', 'moco', "),
        ({"variants.hybrid.contrastive": {"name": None}}, "variants.hybrid.contrastive.name: unknown value None"),
        ({"variants.hybrid.contrastive": {"name": [1]}}, "variants.hybrid.contrastive.name: unknown value [1]"),
        ({"variants.hybrid.generative": {"name": "mask"}},
         "name: unknown value 'mask', did you mean 'masked'. Expected 'autoregressive', "),
        ({"ood.detectors": ["fused", "mahalonobis"]}, "unknown value 'mahalonobis', did you mean 'mahalanobis'"),
        ({"embed.corruptions": ["pixelated"]}, "unknown value 'pixelated', did you mean 'pixelate'"),
        ({"embed.severities": [6]}, "unknown value 6. Expected 1, 2, 3, 4 or 5"),
        ({"training.optimizer": "adam"}, "training.optimizer: unknown value 'adam', did you mean 'adamw'"),
        ({"augmentation.padding": "zero"}, "augmentation.padding: unknown value 'zero', did you mean 'zeros'"),
        ({"data.labelled": {"torchvision": "CIFAR"}}, "torchvision: unknown value 'CIFAR', did you mean 'CIFAR"),
        ({"data.channels": 2}, "data.channels: unknown value 2. Expected 1 or 3"),
        ({"gate.score": ["linear_acuracy"]}, "unknown column 'linear_acuracy', did you mean 'linear_accuracy'"),
        ({"certificate": {"hybird": {}}}, "certificate.hybird: no such variant, did you mean 'hybrid'. Known: hybrid"),
        ({"gate.minimum": {"bits_per_dim": 1}}, "gate.minimum: unknown column 'bits_per_dim'"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_told_with_the_known_ones(load, changes, told):
    with pytest.raises(ConfigError) as refused:
        load(changes)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training.steps": "100"}, "training.steps: input should be a valid integer, found '100'"),
        ({"training.steps": 100.5}, "training.steps: input should be a valid integer"),
        ({"training.steps": True}, "training.steps: input should be a valid integer, found True"),
        ({"seed": False}, "seed: input should be a valid integer, found False"),
        ({"seed": -1}, "seed: input should lie between 0 and 4294967295, found -1"),
        ({"seed": 2**32}, "seed: input should lie between 0 and 4294967295, found 4294967296"),
        ({"augmentation.flip": 1}, "augmentation.flip: input should be a valid boolean, found 1"),
        ({"augmentation.flip": "yes"}, "augmentation.flip: input should be a valid boolean, found 'yes'"),
        ({"augmentation.hue": "a lot"}, "augmentation.hue: input should be a valid number, found 'a lot'"),
        ({"training.learning_rate": float("nan")}, "learning_rate: input should be a finite number, found nan"),
        ({"variants.hybrid.w_gen": float("inf")}, "variants.hybrid.w_gen: input should be a finite number, found inf"),
        ({"probe.l2": [0.1, float("nan")]}, "probe.l2.1: input should be a finite number"),
        ({"gate.minimum": {"knn_accuracy": float("nan")}}, "gate.minimum.knn_accuracy: input should be a finite"),
        ({"variants.hybrid.contrastive": 3}, "variants.hybrid.contrastive: input should be an object, found 3"),
        ({"variants.hybrid.contrastive": {"name": "moco", "queue": 1.5}}, "contrastive.queue: input should be a valid"),
        ({"probe.k": 5}, "probe.k: input should be a valid array, found 5"),
        ({"model": 3}, "model: input should be an object, found 3"),
        ({"model": None}, "model: input should be an object, found None"),
        ({"model": REMOVED}, "model: missing; this key is required"),
        ({"model.patch_size": REMOVED}, "model.patch_size: missing; this key is required"),
        ({"data.ood.far-one.distance": REMOVED}, "data.ood.far-one.distance: missing; this key is required"),
    ],
)  # fmt: skip
def test_a_wrong_type_or_a_missing_key(load, changes, told):
    with pytest.raises(ConfigError) as refused:
        load(changes)
    assert told in str(refused.value)


TURNED = {"augmentation.rotate_degrees": 60}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.patch_size": 3}, "model.patch_size: 3 does not divide data.image_size (8)"),
        ({"model.heads": 3}, "model: width (128) must be a multiple of heads (3)"),
        ({"training.warmup_steps": 100}, "training: warmup_steps (100) must be below steps (100)"),
        ({"training.batch_size": 1}, "training: batch_size must be at least 2"),
        ({"training.weight_decay": -0.1}, "training: weight_decay must not be negative"),
        ({"variants.hybrid": {"w_gen": 0, "w_con": 0}}, "variants.hybrid: w_gen and w_con are both 0"),
        (
            {"variants.hybrid.contrastive": {"name": "moco", "momentum": 1.0}},
            "variants.hybrid.contrastive: momentum must lie in [0, 1)",
        ),
        ({"variants": {}}, "variants: expected at least one variant"),
        ({"variants.Big": {"w_gen": 1, "w_con": 1}}, "variants.Big: a variant's name is a folder's name"),
        ({"variants.floor": {"w_gen": 1, "w_con": 1}}, "variants.floor: a variant's name is a folder's name"),
        (
            {"variants.hybrid": {"w_gen": 0, "w_con": 1, "contrastive": {"name": "rotation"}}, **TURNED},
            "variants.hybrid.contrastive: rotation tells quarter turns apart, which cannot be where views are turned",
        ),
        (
            {"variants.hybrid": {"w_gen": 0, "w_con": 1, "contrastive": {"name": "cmc"}}},
            "variants.hybrid.contrastive: cmc tells lightness from colours, and data.channels is 1. Choose another",
        ),
        (
            {"variants.hybrid.contrastive": {"name": "rotation"}},
            "variants.hybrid: rotation alters all but 1 of an image's views, and 2 are to be scored: set",
        ),
        ({"students.s": {"teacher": "hybrid"}}, "students.s: a student learns by one or more of crd, kd"),
        ({"students.s": {"teacher": "hybird", "kd": {}}}, "s.teacher: unknown variant 'hybird', did you mean 'hybrid'"),
        ({"students.hybrid": {"teacher": "hybrid", "kd": {}}}, "students.hybrid: there is a variant of this name"),
        ({"students.Big": {"teacher": "hybrid", "kd": {}}}, "students.Big: a student's name is a folder's name"),
        ({"students.s": {"teacher": "s", "kd": {}}}, "students.s.teacher: unknown variant 's'"),
        ({"students.s": {"teacher": "hybrid", "crd": {"weight": 0}}}, "students.s.crd: weight must be positive"),
        ({"students.s": {"teacher": "hybrid", "crd": {"momentum": 1}}}, "students.s.crd: momentum must lie in [0, 1)"),
        (
            {"students.s": {"teacher": "hybrid", "kd": {}, "model": {"width": 66}}},
            "students.s.model: with what `model` says, width (66) must be a multiple of heads (4)",
        ),
        (
            {"students.s": {"teacher": "hybrid", "kd": {}, "model": {"patch_size": 3}}},
            "students.s.model.patch_size: 3 does not divide data.image_size (8)",
        ),
        (
            {"students.s": {"teacher": "hybrid", "kd": {}, "training": {"steps": 50}}},
            "students.s.training: with what `training` says, warmup_steps (50) must be below steps (50)",
        ),
        ({"data.labelled": {"builtin": "digits", "folder": "x"}}, "a source names exactly one of builtin, folder"),
        ({"data.ood.far-one.held_out_classes": ["1"]}, "data.ood.far-one: an OOD set has exactly one of"),
        ({"data.ood": {}, "gate.score": ["knn_accuracy"]}, "data.ood: expected at least one OOD set"),
        ({"data.ood.near-one": REMOVED}, "gate.score: near_ood_auroc is not measured without an OOD"),
        ({"data.ood.far-one.distance": "near"}, "gate.score: far_ood_auroc is not measured without an OOD"),
        (
            {"probe.shots": [1], "gate.minimum": {"few_label_accuracy": 0.5}},
            "gate.minimum: few_label_accuracy is not measured without 10 in probe.shots",
        ),
        (
            {"gate.minimum": {"robustness": 0.5}},
            "gate.minimum: robustness is not measured without a corruption in embed.corruptions",
        ),
        (
            {"data.image_size": 6, "embed.corruptions": ["contrast"]},
            "embed.corruptions: images of 8 × 8 pixels or more can be corrupted, data.image_size is 6. Leave it empty.",
        ),
        ({"embed.severities": []}, "embed: severities must list at least one"),
        ({"embed.severities": [1, 1]}, "embed: severities holds a value twice"),
        ({"embed.layer_images": -1}, "embed: layer_images must not be negative"),
        ({"embed.corrupted_images": 0}, "embed: corrupted_images must be at least 1"),
        ({"ood.detectors": ["knn"]}, "ood: detectors must hold `fused`"),
        ({"export.batch_sizes": [4]}, "export: batch_sizes must hold two different sizes"),
        ({"gate.score": []}, "gate: score must name at least one column"),
    ],
)  # fmt: skip
def test_an_impossible_combination(load, changes, told):
    with pytest.raises(ConfigError) as refused:
        load(changes)
    assert told in str(refused.value)


def test_every_mistake_is_told_at_once(load):
    with pytest.raises(ConfigError) as refused:
        load({"seed": "one", "model.widht": 64, "ood.detectors": ["fused", "kn"]})
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert all("params.yaml: " in line for line in lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a mapping of sections, found NoneType"),
        ("- 1\n- 2\n", "expected a mapping of sections, found list"),
        ("seed: [0\n", "not valid YAML"),
        ("seed: 0\nseed: 1\n", 'found duplicate key "seed"'),
        ("data: {channels: 1, channels: 3}\n", 'found duplicate key "channels"'),
        ("seed: !!python/object:os.system x\n", "not valid YAML: could not determine a constructor"),
        (b"\xe9: \xfc\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "expected plain mappings"),
        ("seed: &a [*a]\n", "expected plain mappings"),
    ],
)
def test_a_file_that_is_no_configuration(load, text, told):
    with pytest.raises(ConfigError) as refused:
        load(text=text)
    assert "params.yaml: " in str(refused.value)
    assert told in str(refused.value)


def test_no_file(tmp_path):
    for path in (tmp_path / "params.yaml", tmp_path):
        with pytest.raises(ConfigError, match=r"not found\. Run from the project's root, or copy a preset"):
            load_params(path)


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
        load({"students": REMOVED})
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
    preset = ROOT / "presets" / "digits-cpu.yaml"
    if not preset.exists():
        pytest.skip("the presets are not there yet")
    assert content(ROOT / "params.yaml") == content(preset)


def test_images_that_chose_the_model_cannot_certify_it(load):
    assert load({"certificate": {"hybrid": {}}}).certificate["hybrid"].split == "val"
    with pytest.raises(ConfigError, match=r"certificate\.hybrid\.split: training\.keep best_knn chooses"):
        load({"certificate": {"hybrid": {}}, "training.keep": "best_knn"})
    load({"certificate": {"hybrid": {"split": "test"}}, "training.keep": "best_knn"})
