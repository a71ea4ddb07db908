"""What a params file may not hold, and how that is told."""

import pytest

from components.errors import ConfigError
from pipelines.config.params import load_params


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
         "contrastive.momntum: unknown key, did you mean 'momentum'. Known keys: name, queue_size, momentum, temp"),
        ({"variants.hybrid.contrastive": {"queue_size": 8}},
         "contrastive.queue_size: unknown key. Known keys: name, temperature."),
        ({"variants.hybrid.generative": {"scored_rato": 1}}, "scored_rato: unknown key, did you mean 'scored_ratio'"),
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
         "hybrid.contrastive.name: unknown value 'mocov3', did you mean 'moco_v3'. Expected 'cacr', 'cmc', "),
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
        ({"variants.hybrid.generative": {"image_size": 3, "patch_size": 1}},
         "image_size: 3 is no whole part of data.image_size (8). With patches of 1×1 pixels choose one of 1, 2, 4."),
        ({"variants.hybrid.generative": {"image_size": 6}}, "patch_size (4) must divide image_size (6)"),
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
        ({"training.steps": "100"}, "training.steps: expected an integer, found '100'"),
        ({"training.steps": 100.5}, "training.steps: expected an integer"),
        ({"training.steps": True}, "training.steps: expected an integer, found True"),
        ({"seed": False}, "seed: expected an integer, found False"),
        ({"seed": -1}, "seed: input should lie between 0 and 4294967295, found -1"),
        ({"seed": 2**32}, "seed: input should lie between 0 and 4294967295, found 4294967296"),
        ({"augmentation.flip": 1}, "augmentation.flip: expected true or false, found 1"),
        ({"augmentation.flip": "yes"}, "augmentation.flip: expected true or false, found 'yes'"),
        ({"augmentation.hue": "a lot"}, "augmentation.hue: expected a number, found 'a lot'"),
        ({"training.learning_rate": float("nan")}, "learning_rate: expected a finite number, found nan"),
        ({"variants.hybrid.w_gen": float("inf")}, "variants.hybrid.w_gen: expected a finite number, found inf"),
        ({"probe.l2": [0.1, float("nan")]}, "probe.l2.1: expected a finite number"),
        ({"gate.minimum": {"knn_accuracy": float("nan")}}, "gate.minimum.knn_accuracy: expected a finite number"),
        ({"variants.hybrid.contrastive": 3}, "variants.hybrid.contrastive: expected a mapping, found 3"),
        ({"variants.hybrid.contrastive": {"name": "moco", "queue_size": 1.5}},
         "contrastive.queue_size: expected an integer, found 1.5"),
        ({"probe.k": 5}, "probe.k: expected a list, found 5"),
        ({"model": 3}, "model: expected a mapping, found 3"),
        ({"model": None}, "model: expected a mapping, found None"),
        ({"data.ood.near-one.held_out_classes": [4]},
         "data.ood.near-one.held_out_classes.0: expected text, found 4: put it in quotes."),
        ({"data.labelled.parquet": [1]}, "data.labelled.parquet.0: expected text, found 1: put it in quotes."),
        ({"model": ...}, "model: missing; this key is required"),
        ({"model.patch_size": ...}, "model.patch_size: missing; this key is required"),
        ({"data.ood.far-one.distance": ...}, "data.ood.far-one.distance: missing; this key is required"),
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
        ({"variants.baselines": {"w_gen": 1, "w_con": 1}}, "variants.baselines: a variant's name is a folder's name"),
        (
            {"variants.hybrid": {"w_gen": 0, "w_con": 1, "contrastive": {"name": "rotation"}}, **TURNED},
            "variants.hybrid.contrastive.name: rotation tells quarter turns apart, which cannot be where views",
        ),
        (
            {"variants.hybrid": {"w_gen": 0, "w_con": 1, "contrastive": {"name": "cmc"}}},
            "variants.hybrid.contrastive.name: cmc tells lightness from colours, and data.channels is 1. Choose",
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
        ({"data.ood.near-one": ...}, "gate.score: near_ood_auroc is not measured without an OOD"),
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
        ({"export.opset": 17}, "export: opset must lie between 18 and"),
        ({"export.opset": 99}, "export: opset must lie between 18 and"),
        ({"export.batch_sizes": [4]}, "export: batch_sizes must hold two different sizes"),
        ({"gate.score": []}, "gate: score must name at least one column"),
    ],
)  # fmt: skip
def test_an_impossible_combination(load, changes, told):
    with pytest.raises(ConfigError) as refused:
        load(changes)
    assert told in str(refused.value)


LONG = "a" * 300


@pytest.mark.parametrize("kind", ["variant", "student"])
@pytest.mark.parametrize("name", ["", "Big", "a b", "a/b", "../a", "naïve", "١٢", "²", "a\n", "-a", "_", ".", LONG])
def test_a_name_that_can_be_no_folders(load, kind, name):
    settings = {"variant": {"w_gen": 1, "w_con": 1}, "student": {"teacher": "hybrid", "kd": {}}}[kind]
    with pytest.raises(ConfigError) as refused:
        load({f"{kind}s": {name: settings}})
    told = str(refused.value)
    assert f"a {kind}'s name is a folder's name: up to 64 lower-case letters (a to z), digits, - and _" in told
    assert len(told.splitlines()) == 1
    assert len(told) < 400


@pytest.mark.parametrize("name", ["", "A", "a_b", "a b", "a/b", "ä", "١٢", "²", "a\n", "-a", "--", "'", LONG])
def test_an_ood_sets_name(load, name):
    with pytest.raises(ConfigError) as refused:
        load({"data.ood": {name: {"distance": "far", "shuffled_test": True}}})
    told = str(refused.value)
    assert "use up to 64 lower-case letters (a to z), digits and hyphens, the first a letter or digit" in told
    assert len(told.splitlines()) == 1
    assert len(told) < 400


@pytest.mark.parametrize(
    "name", ["", " ", "a/b:c", "a:b", "o'brien", 'o"brien', "a\\b", ".", "..", "a/", " a", "a\n", "ä", "a%", LONG]
)
def test_a_registered_models_name(load, name):
    with pytest.raises(ConfigError) as refused:
        load({"tracking.registered_model": name})
    told = str(refused.value)
    assert "tracking: registered_model '" in told
    assert "expected up to 64 letters (a to z, A to Z), digits, spaces, ., _ and -" in told
    assert len(told.splitlines()) == 1
    assert len(told) < 400


@pytest.mark.parametrize("name", ["", " ", " a", "a\t", "a\nb", "\u200b", "cafe\u0301", LONG])
def test_an_experiments_name(load, name):
    with pytest.raises(ConfigError) as refused:
        load({"tracking.experiment": name})
    assert "tracking: experiment '" in str(refused.value)
    assert ": expected" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 400


def test_names_that_are_right(load):
    params = load(
        {
            "variants.0-a_b": {"w_gen": 1, "w_con": 1},
            "data.ood.12": {"distance": "far", "shuffled_test": True},
            "tracking": {"experiment": "/Users/o'brien@example.org/café 1", "registered_model": "My model-1.0_b"},
        }
    )
    assert "0-a_b" in params.variants
    assert "12" in params.data.ood


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
        ("? [1, 2]\n: 3\n", "(1, 2): unknown key. Known keys: seed, data"),
        ("seed: &a [*a]\n", "seed: expected an integer, found [[...]]"),
        ("students: &a {s: *a}\n", "students.s.s: unknown key. Known keys: teacher"),
        ("variants: {true: {w_gen: 1, w_con: 1}}\n", "variants: expected names as keys, found True: put it in quotes."),
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
