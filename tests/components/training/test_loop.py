import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from components.data.config import AugmentationConfig
from components.errors import UserError
from components.model.build import Architecture, save_weights
from components.model.config import ModelConfig
from components.model.gcrl import GCRL
from components.model.tokens import to_unit
from components.objectives.config import VariantConfig
from components.objectives.config_contrastive import ContrastiveConfig, MoCoConfig, NTXentConfig
from components.objectives.config_generative import (
    AutoregressiveConfig,
    GenerativeConfig,
    MaskedConfig,
    PixelCNNConfig,
    ReplacedConfig,
)
from components.training.average import update_average
from components.training.checkpoint import History
from components.training.config import TrainingConfig
from components.training.loop import pretrain
from components.training.quick_look import PretrainData, evaluate, validate

AUGMENTATION = AugmentationConfig(crop_scale=0.8, translate=0.1, brightness=0.2, contrast=0.2)
CONFIG = TrainingConfig(
    steps=12, batch_size=16, learning_rate=0.1, warmup_steps=2, device="cpu", precision="float32", log_every=2,
    evaluate_every=3, diagnose_every=4, checkpoint_seconds=0,
)  # fmt: skip
HYBRID = VariantConfig(1, 1)
TERMS = [config for config in get_args(ContrastiveConfig) if config is not NTXentConfig]
OWNING = [config for config in get_args(GenerativeConfig) if not config.exact]
TIMING = {"seconds", "images_per_second"}
CPU = torch.device("cpu")

KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from test_loop import AUGMENTATION, CONFIG, HYBRID
from components.model.build import load_weights
from components.training.loop import PretrainData, pretrain

replace, saves = Path.replace, []

def replace_or_die(path, target):
    saves.append(target)
    if len(saves) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = replace_or_die
folder = Path(sys.argv[1])
model, _ = load_weights(folder / "start.safetensors")
images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
data = PretrainData(images, (images, labels), (images[:40], labels[:40]))
pretrain(model, data, HYBRID, CONFIG, AUGMENTATION, 0, folder / "resume.pt", "key", lambda step, metrics: None)
"""


def data_of(images: np.ndarray, labels: np.ndarray) -> PretrainData:
    return PretrainData(images, (images, labels), (images[:40], labels[:40]), labels)


@pytest.fixture
def data(stripes) -> PretrainData:
    return data_of(*stripes)


@pytest.fixture
def train(data, coloured_stripes, tmp_path) -> Callable[..., History]:
    """Train a model in place, by default for twelve steps without being interrupted; returns the history."""

    def run(
        model: GCRL,
        variant: VariantConfig = HYBRID,
        resume: Path | None = None,
        on_metrics: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
        **changes: Any,
    ) -> History:
        place, config = resume or tmp_path / "whole" / "resume.pt", replace(CONFIG, **changes)
        seen = data_of(*coloured_stripes) if model.channels == 3 else data
        return pretrain(model, seen, variant, config, AUGMENTATION, 0, place, "key", on_metrics).history

    return run


@pytest.fixture
def fresh(make_model) -> Callable[..., GCRL]:
    def make(variant: VariantConfig = HYBRID, seed: int = 0) -> GCRL:
        channels = 3 if variant.contrastive.name == "cmc" else 1
        layers = 3 if variant.contrastive.name == "loco" else 1  # for two units
        sizes = {"patch_size": 2, "image_size": 8, "colours": 8, "encoder_layers": layers, "decoder_layers": 1}
        terms = {"w_gen": variant.w_gen, "w_con": variant.w_con, "generative": variant.generative}
        return make_model(**sizes, **terms, channels=channels, seed=seed, fresh=True)

    return make


def small(config: type) -> Any:
    """A term's default settings, or others that so few images allow."""
    return MoCoConfig(queue=64) if config is MoCoConfig else config()


def without_timing(history: History) -> History:
    return [{name: value for name, value in row.items() if name not in TIMING} for row in history]


def assert_equal_weights(one: GCRL, other: GCRL) -> None:
    for (name, ours), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        (HYBRID, {}),
        (HYBRID, {"precision": "bfloat16"}),
        (HYBRID, {"optimizer": "adamw"}),
        (HYBRID, {"micro_batch": 4, "views": 3}),
        (HYBRID, {"ema_decay": 0.9, "keep": "best_knn"}),
        (VariantConfig(1, 1, generative=AutoregressiveConfig(scored_share=0.3)), {}),
        (VariantConfig(1, 0), {}),
        (VariantConfig(1, 1, generative=PixelCNNConfig()), {}),
        (VariantConfig(0, 1), {}),
        *((VariantConfig(0, 1, contrastive=small(config)), {"micro_batch": 8}) for config in TERMS),
        *((VariantConfig(1, 0, generative=config()), {"micro_batch": 8}) for config in OWNING),
    ],
    ids=[
        *["muon", "muon in bfloat16", "adamw", "micro-batches", "average", "some patches", "generative"],
        *["convolutions", "contrastive"],
        *(config.name for config in (*TERMS, *OWNING)),
    ],
)
@pytest.mark.parametrize("done", [0, 3, 7], ids="{} steps done".format)
def test_a_resumed_run_ends_bit_for_bit_where_the_uninterrupted_one_ends(
    fresh, train, tmp_path, variant, settings, done
):
    place, kept = tmp_path / "resume.pt", tmp_path / "kept.pt"

    def interrupt(step: int, metrics: dict[str, float]) -> None:
        if step == done + 1:  # the file of the step before; its own is not written yet
            shutil.copy(place, kept)
        if step == 8:
            raise KeyboardInterrupt

    whole = fresh(variant)
    history = train(whole, variant, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(variant), variant, resume=place, on_metrics=interrupt, **settings)
    if done:
        assert torch.load(kept)["step"] == done
    resumed = fresh(variant, seed=1 if done else 0)  # all of it comes from the file, where there is one
    seen: list[int] = []
    again = train(resumed, variant, resume=kept, on_metrics=lambda step, _: seen.append(step), **settings)

    assert_equal_weights(whole, resumed)
    assert without_timing(again) == without_timing(history)
    assert seen == [row["step"] for row in history] == [2, 3, 4, 6, 8, 9, 10, 12]


def test_a_killed_process_is_resumed_bit_for_bit(fresh, train, data, tmp_path):
    architecture = Architecture(ModelConfig(2, 16, 2, 1, 1, 8, 16, 8), 8, 1, 8, True, True, True, False, 0)
    save_weights(tmp_path / "start.safetensors", fresh(), architecture)
    np.save(tmp_path / "images.npy", data.images)
    np.save(tmp_path / "labels.npy", data.bank[1])
    here = Path(__file__)
    path = {"PYTHONPATH": f"{here.parents[3]}:{here.parent}", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, tmp_path]
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert torch.load(tmp_path / "resume.pt")["step"] == 5

    resumed, whole = fresh(seed=1), fresh()
    assert without_timing(train(resumed, resume=tmp_path / "resume.pt")) == without_timing(train(whole))
    assert_equal_weights(resumed, whole)


def test_the_resume_file_of_another_run_is_refused(fresh, train, data, tmp_path):
    place = tmp_path / "resume.pt"
    train(fresh(), resume=place)
    with pytest.raises(UserError, match="resume file of another run"):
        pretrain(fresh(), data, HYBRID, CONFIG, AUGMENTATION, 0, place, "other key", lambda step, metrics: None)


@pytest.mark.parametrize("variant", [HYBRID, VariantConfig(1, 0), VariantConfig(0, 1)])
def test_a_diverging_run_stops_and_names_step_rate_and_terms(fresh, train, tmp_path, variant):
    seen: list[dict[str, float]] = []
    place = tmp_path / "resume.pt"
    with pytest.raises(UserError) as stopped:
        train(
            fresh(variant),
            variant,
            resume=place,
            on_metrics=lambda step, metrics: seen.append(metrics),
            learning_rate=1e30,
            warmup_steps=0,
        )
    message = str(stopped.value)
    assert message.startswith("step 2: ")
    assert "learning rate 6.1" in message
    assert ("generative" in message) == (variant.w_gen > 0)
    assert ("contrastive" in message) == (variant.w_con > 0)
    assert torch.load(place)["step"] == 1  # from before the step that failed
    assert all(np.isfinite(value) for metrics in seen for value in metrics.values())


@pytest.mark.parametrize("watched", ["log_every", "evaluate_every", "diagnose_every"])
def test_nothing_that_is_not_finite_is_shown_or_kept(fresh, train, tmp_path, watched):
    seen: list[int] = []
    rarely = {"log_every": 100, "evaluate_every": 100, "diagnose_every": 100, "checkpoint_seconds": 1000, watched: 3}
    with pytest.raises(UserError, match=r"step 2: .*not finite"):
        train(fresh(), on_metrics=lambda step, _: seen.append(step), learning_rate=1e30, warmup_steps=0, **rarely)
    assert seen == []
    assert not (tmp_path / "whole").exists()


def test_a_gradient_that_is_not_finite_stops_even_the_last_step(fresh, train):
    model = fresh()
    with torch.no_grad():  # the loss stays finite, its slope does not
        model.head.logits.weight.fill_(1e30)
    with pytest.raises(UserError, match=r"step 1: .*gradient norm (inf|nan)"):
        train(model, VariantConfig(1, 1), steps=1, warmup_steps=0)


def test_a_short_run_lowers_both_losses_and_logs_what_should_be_watched(fresh, train):
    history = train(fresh(), steps=40, log_every=1, evaluate_every=10, diagnose_every=10)
    for name in ("nll_nats_per_token", "contrastive_loss"):
        losses = [row[name] for row in history]
        assert np.mean(losses[-5:]) < losses[0] - 0.1
    assert history[0]["nll_nats_per_token"] == pytest.approx(np.log(8), abs=1e-5)  # uniform over eight grey levels
    watched = {"gradient_norm/generative", "gradient_norm/contrastive", "gradient_cosine", "gradient_norm/all"}
    quick_look = {"val/knn_accuracy", "val/feature_std", "val/effective_rank", "val/nll_nats_per_token"}
    assert watched | quick_look | TIMING | {"learning_rate", "contrastive_accuracy"} <= set(history[-1])
    assert history[-1]["val/knn_accuracy"] > 0.5  # four classes
    assert -1 <= history[-1]["gradient_cosine"] <= 1


@pytest.mark.parametrize("variant", [VariantConfig(1, 0), VariantConfig(0, 1)], ids=["generative", "contrastive"])
def test_a_variant_with_one_term_logs_that_term_alone(fresh, train, variant):
    logged = {name for row in train(fresh(variant), variant) for name in row}
    likelihood = {"nll_nats_per_token", "val/nll_nats_per_token", "gradient_norm/generative"}
    contrast = {"contrastive_loss", "contrastive_accuracy", "gradient_norm/contrastive"}
    assert likelihood <= logged if variant.w_gen else not likelihood & logged
    assert contrast <= logged if variant.w_con else not contrast & logged
    assert "gradient_cosine" not in logged


def test_a_loss_that_is_no_likelihood_is_logged_under_its_own_name(fresh, train):
    variant = VariantConfig(1, 0, generative=MaskedConfig())
    history = train(fresh(variant), variant, steps=40, log_every=1, evaluate_every=10)
    losses = [row["generative_loss"] for row in history]
    assert losses[0] == pytest.approx(np.log(8), abs=1e-5)  # uniform over eight grey levels
    assert np.mean(losses[-5:]) < losses[0] - 0.1
    assert history[-1]["val/generative_loss"] < losses[0] - 0.1
    assert not {"nll_nats_per_token", "val/nll_nats_per_token"} & {name for row in history for name in row}


def test_the_model_is_evaluated_on_clean_images(fresh, train, data):
    model = fresh()
    history = train(model)
    model.eval()
    with torch.no_grad():
        clean = model(model.tokenizer(to_unit(torch.from_numpy(data.val[0])))).nll.mean()
    assert history[-1]["val/nll_nats_per_token"] == pytest.approx(clean.item(), rel=1e-5)


@pytest.mark.parametrize(("rule", "metric", "better"), [("best_nll", "val/nll_nats_per_token", min),
                                                        ("best_knn", "val/knn_accuracy", max)])  # fmt: skip
def test_the_best_evaluated_model_is_kept_by_rule(fresh, data, tmp_path, rule, metric, better):
    """On images unlike those it learns from a model gets worse. The weights are those of the step that is named."""
    model = fresh()
    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    data = replace(data, val=(noise, data.val[1]))
    config = replace(CONFIG, keep=rule, evaluate_every=1, log_every=1)
    trained = pretrain(model, data, HYBRID, config, AUGMENTATION, 0, tmp_path / "r.pt", "key", lambda *_: None)
    evaluated = {row["step"]: row[metric] for row in trained.history}
    best = better(evaluated.values())
    assert trained.step == next(step for step, value in evaluated.items() if value == best) < 12
    assert trained.metrics[metric] == best
    assert "step" not in trained.metrics
    assert evaluate(model, data, CPU)[metric] == best


def test_a_variant_without_a_likelihood_ends_with_its_last_model_under_best_nll(fresh, data, tmp_path):
    variant = VariantConfig(0, 1)
    config = replace(CONFIG, keep="best_nll", evaluate_every=1)
    trained = pretrain(
        fresh(variant), data, variant, config, AUGMENTATION, 0, tmp_path / "r.pt", "key", lambda *_: None
    )
    assert trained.step == 12


def test_the_average_is_what_is_evaluated_and_ends_the_run(fresh, data, tmp_path):
    """It is the average of what the plain run's weights were after each step."""
    weights: list[dict[str, torch.Tensor]] = []
    plain, averaged = fresh(), fresh()
    expected = fresh()

    def note(step: int, metrics: dict[str, float]) -> None:
        update_average(expected, plain, 0.6, step)
        weights.append({name: value.clone() for name, value in expected.state_dict().items()})

    config = replace(CONFIG, log_every=1)
    pretrain(plain, data, HYBRID, config, AUGMENTATION, 0, tmp_path / "plain.pt", "key", note)
    config = replace(config, ema_decay=0.6)
    trained = pretrain(averaged, data, HYBRID, config, AUGMENTATION, 0, tmp_path / "r.pt", "key", lambda *_: None)
    assert trained.step == len(weights) == 12
    for name, value in averaged.state_dict().items():
        assert torch.equal(value, weights[-1][name]), name
    assert not torch.equal(averaged.start, plain.start)
    found = evaluate(averaged, data, CPU)
    assert {name: trained.metrics[name] for name in found} == found


def test_a_term_is_validated_with_the_averaged_model_beside_which_it_is_saved(fresh, data, tmp_path):
    variant = VariantConfig(1, 0, generative=MaskedConfig())
    model, config = fresh(variant), replace(CONFIG, ema_decay=0.6)
    trained = pretrain(model, data, variant, config, AUGMENTATION, 0, tmp_path / "r.pt", "key", lambda *_: None)
    found = validate(model, trained.objective, data, CPU)
    assert found["val/generative_loss"] == trained.metrics["val/generative_loss"]


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        (HYBRID, {"micro_batch": 4}),
        (VariantConfig(1, 1, contrastive=MoCoConfig(queue=64)), {"compile": True}),
        (VariantConfig(0.02, 1, generative=ReplacedConfig()), {"compile": True}),
        (VariantConfig(0, 1), {"compile": True}),
    ],
    ids=["micro-batches", "compiled", "compiled with another generative term", "compiled without one"],
)
def test_how_a_run_is_computed_does_not_change_what_it_finds(fresh, train, tmp_path, variant, changes, monkeypatch):
    """The first steps of it: rounding grows on its way through an optimizer."""
    # traced and split into forward and backward, but not compiled to C++, which would take a minute
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    steps = {"steps": 3, "log_every": 1, "diagnose_every": 2, "warmup_steps": 0, "learning_rate": 0.001}
    model = fresh(variant)
    expected = train(fresh(variant), variant, resume=tmp_path / "one.pt", **steps)
    found = train(model, variant, resume=tmp_path / "other.pt", **steps, **changes)
    for ours, theirs in zip(without_timing(found), without_timing(expected), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert list(torch.load(tmp_path / "other.pt")["model"]) == list(fresh(variant).state_dict())


def test_a_process_compiles_for_as_many_models_as_it_trains(fresh, train, tmp_path, monkeypatch):
    """Beyond its limit torch would go on without compiling, and say so in a warning alone; here it would fail."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        for variant in (HYBRID, VariantConfig(1, 0)):
            once = {"steps": 1, "warmup_steps": 0, "compile": True}
            assert len(train(fresh(variant), variant, resume=tmp_path / f"{variant.w_con}.pt", **once)) == 1
