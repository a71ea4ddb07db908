import json

import numpy as np
import pytest

from components.data.config import DataConfig, OodSet, Source
from components.evaluation.config import OodConfig
from components.evaluation.ood import registry
from components.evaluation.ood.base import Batch, InDistribution
from components.evaluation.ood.metrics import auroc
from components.evaluation.ood.run import run_detectors, threshold_at
from components.evaluation.probes.linear_probe import Labelled
from components.evaluation.probes.run import fit_linear

pytestmark = pytest.mark.trains

DISTANCES = {"held-out": "near", "noise": "far", "patches": "far"}
DETECTORS = registry.load_all()
MEASURES = {"auroc", "aupr", "fpr95"}


def make(n: int, seed: int, shift: float = 0.0, likelihood: bool = True) -> Batch:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 5)) + shift
    features[:, 0] += 5 * (np.arange(n) % 2)
    images = rng.integers(0, 256, (n, 4, 4, 1)).astype(np.uint8)
    likelihoods = (rng.normal(3 + shift, 0.2, n), np.full(n, 5.0)) if likelihood else ()
    return Batch(features.astype(np.float32), images, *likelihoods)


def run(likelihood: bool = True, seed: int = 0, **config):
    train, val = (Labelled(make(200, s).features, np.arange(200) % 2) for s in (0, 1))
    data = InDistribution(train, make(200, 1, likelihood=likelihood), fit_linear(train, val, (0.1,)))
    sets = zip(DISTANCES, (0.7, 4.0, 8.0), strict=True)
    ood = {name: make(100, 10, shift, likelihood) for name, shift in sets}
    options = {"detectors": tuple(DETECTORS), "bootstrap": 100} | config
    return run_detectors(data, make(300, 2, likelihood=likelihood), ood, DISTANCES, OodConfig(**options), seed)


@pytest.fixture(scope="module")
def result():
    return run()


def test_names_of_the_metrics(result):
    of_set = MEASURES | {f"{m}_{end}" for m in MEASURES for end in ("low", "high")} | {"flagged"}
    expected = {
        f"{detector}/{rest}"
        for detector in DETECTORS
        for rest in (
            "threshold",
            "test/flagged",
            *(f"{name}/{measure}" for name in DISTANCES for measure in of_set),
            *(f"{group}/{measure}" for group in ("near", "far", "mean") for measure in MEASURES),
        )
    }
    assert set(result.metrics) == expected
    json.dumps([result.metrics, result.constants, result.thresholds, result.left_out], allow_nan=False)
    assert all(0 <= value <= 1 for name, value in result.metrics.items() if not name.endswith("threshold"))


def test_averages_and_intervals(result):
    for detector in DETECTORS:
        metric = {name: result.metrics[f"{detector}/{name}/auroc"] for name in (*DISTANCES, "near", "far", "mean")}
        assert metric["near"] == metric["held-out"]
        assert metric["far"] == pytest.approx((metric["noise"] + metric["patches"]) / 2)
        assert metric["mean"] == pytest.approx(np.mean([metric[name] for name in DISTANCES]))
        for name in DISTANCES:
            low, high = (result.metrics[f"{detector}/{name}/auroc_{end}"] for end in ("low", "high"))
            assert low <= metric[name] <= high
    assert result.metrics["fused/mean/auroc"] > 0.9


def test_metrics_are_those_of_the_scores(result):
    scores = result.scores["knn"]
    assert set(scores) == {"val", "test", *DISTANCES}
    assert result.metrics["knn/noise/auroc"] == auroc(scores["test"], scores["noise"])
    threshold = threshold_at(scores["val"], 0.05)
    assert result.thresholds["knn"] == result.metrics["knn/threshold"] == threshold
    assert result.metrics["knn/noise/flagged"] == (scores["noise"] > threshold).mean()


def test_thresholds_know_validation_data_alone(result):
    train = Labelled(make(200, 0).features, np.arange(200) % 2)
    data = InDistribution(train, make(200, 1), fit_linear(train, train, (0.1,)))
    config = OodConfig(detectors=("mahalanobis", "fused"), bootstrap=10)
    other = run_detectors(data, make(50, 77, 2.0), {"noise": make(30, 78, -9.0)}, {"noise": "far"}, config, seed=0)
    for detector in ("mahalanobis", "fused"):
        assert other.thresholds[detector] == result.thresholds[detector]
    assert "fused/near/auroc" not in other.metrics  # there is no near set
    assert other.metrics["fused/mean/auroc"] == other.metrics["fused/far/auroc"]


def test_detectors_that_need_a_likelihood_are_left_out_by_name():
    result = run(likelihood=False)
    assert set(result.left_out) == {"nll", "typicality", "nll_complexity", "likelihood_ratio"}
    assert "likelihood" in result.left_out["nll"]
    assert set(result.scores) == set(DETECTORS) - set(result.left_out)
    assert len(result.fused.locations) == 1


def test_seed_and_nothing_else_moves_the_intervals(result):
    assert run().metrics == result.metrics
    other = run(seed=1)
    changed = {name for name in result.metrics if other.metrics[name] != result.metrics[name]}
    assert changed
    assert all(name.endswith(("_low", "_high")) for name in changed)


def test_threshold_is_the_conformal_quantile():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100))  # 1 … 99
    assert threshold_at(scores, 0.05) == 95  # rank ⌈100 · 0.95⌉
    assert threshold_at(scores, 0.5) == 50
    assert threshold_at(scores[:5], 0.05) == scores[:5].max()


def test_false_alarms_keep_to_the_rate_on_average():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        threshold = threshold_at(rng.normal(size=50), 0.1)
        rates.append((rng.normal(size=200) > threshold).mean())
    assert np.mean(rates) == pytest.approx(0.1, abs=0.01)


def test_a_wrong_false_alarm_rate_and_a_missing_fused_are_refused():
    with pytest.raises(ValueError, match="must hold `fused`"):
        OodConfig(detectors=("knn",))
    with pytest.raises(ValueError, match="false_alarm_rate"):
        OodConfig(detectors=("fused",), false_alarm_rate=1.0)


@pytest.mark.parametrize("name", ["near", "mean", "test"])
def test_an_ood_set_cannot_take_the_name_of_an_average(name):
    ood = {name: OodSet("far", source=Source(builtin="photo-patches"))}
    with pytest.raises(ValueError, match="means something else in the metrics"):
        DataConfig(image_size=8, channels=1, labelled=Source(builtin="digits"), ood=ood)
