from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from components.errors import UserError
from components.model.tokens import to_unit
from components.objectives.config import VariantConfig
from components.objectives.contrastive.moco import MoCoConfig
from components.objectives.generative.masked import MaskedConfig
from components.objectives.generative.replaced import ReplacedConfig
from components.training.ema import update_ema
from components.training.loop import pretrain
from components.training.validation import evaluate, validate
from tests.components.training.small_runs import AUGMENTATION, CONFIG, HYBRID, TIMING, without_timing

pytestmark = pytest.mark.trains

CPU = torch.device("cpu")


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


def test_a_short_run_lowers_both_losses_and_logs_what_should_be_watched(fresh, train, data):
    model = fresh()
    history = train(model, steps=80, log_every=1, evaluate_every=10, diagnose_every=10)
    for name in ("nll_nats_per_token", "contrastive_loss"):
        losses = [row[name] for row in history]
        assert np.mean(losses[-5:]) < losses[0] - 0.15  # with five seeds it was 0.3 and more
    assert history[0]["nll_nats_per_token"] == pytest.approx(np.log(8), abs=1e-5)  # uniform over eight grey levels
    watched = {"gradient_norm/generative", "gradient_norm/contrastive", "gradient_cosine", "gradient_norm/all"}
    quick_look = {"val/knn_accuracy", "val/feature_std", "val/effective_rank", "val/nll_nats_per_token"}
    assert watched | quick_look | TIMING | {"learning_rate", "contrastive_accuracy"} <= set(history[-1])
    assert history[-1]["val/knn_accuracy"] == evaluate(model, data, CPU)["val/knn_accuracy"]
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
    history = train(fresh(variant), variant, steps=80, log_every=1, evaluate_every=10)
    losses = [row["generative_loss"] for row in history]
    assert losses[0] == pytest.approx(np.log(8), abs=1e-5)  # uniform over eight grey levels
    assert np.mean(losses[-5:]) < losses[0] - 0.15  # with five seeds it was 0.28 and more
    assert history[-1]["val/generative_loss"] < losses[0] - 0.3  # 0.6 and more
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
        update_ema(expected, plain, 0.6, step)
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
        (HYBRID, {"micro_batch_size": 4}),
        (VariantConfig(1, 1, contrastive=MoCoConfig(queue_size=64)), {"compile": True}),
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
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    assert list(torch.load(tmp_path / "other.pt")["model"]) == list(fresh(variant).state_dict())


def test_a_process_compiles_for_as_many_models_as_it_trains(fresh, train, tmp_path, monkeypatch):
    """Beyond its limit torch would go on without compiling, and say so in a warning alone; here it would fail."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        for variant in (HYBRID, VariantConfig(1, 0)):
            once = {"steps": 1, "warmup_steps": 0, "compile": True}
            assert len(train(fresh(variant), variant, resume=tmp_path / f"{variant.w_con}.pt", **once)) == 1
