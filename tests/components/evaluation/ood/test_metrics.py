import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from components.evaluation.ood.metrics import aupr, auroc, fpr_at_tpr, intervals, roc_curve

# few distinct values, so that ties within and across the sets are the rule
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40).map(np.array)


def labelled(id_scores, ood_scores):
    return np.repeat([0, 1], [len(id_scores), len(ood_scores)]), np.concatenate([id_scores, ood_scores])


@given(scores, scores)
@settings(max_examples=150, deadline=None)
def test_against_scikit_learn_with_ties(id_scores, ood_scores):
    truth, values = labelled(id_scores, ood_scores)
    assert auroc(id_scores, ood_scores) == pytest.approx(sk.roc_auc_score(truth, values))
    assert aupr(id_scores, ood_scores) == pytest.approx(sk.average_precision_score(truth, values))
    # OpenOOD v1.5's definition; its sklearn default drops points on straight pieces, which can skip the crossing
    fpr, tpr, _ = sk.roc_curve(truth, values, drop_intermediate=False)
    assert fpr_at_tpr(id_scores, ood_scores) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])


@pytest.mark.parametrize("m", [1, 19, 20, 21, 140, 1000])
def test_continuous_scores_against_scikit_learn(m):
    rng = np.random.default_rng(m)
    id_scores, ood_scores = rng.normal(size=500), rng.normal(1, 2, size=m)
    truth, values = labelled(id_scores, ood_scores)
    assert auroc(id_scores, ood_scores) == pytest.approx(sk.roc_auc_score(truth, values))
    fpr, tpr, _ = sk.roc_curve(truth, values, drop_intermediate=False)
    assert fpr_at_tpr(id_scores, ood_scores) == fpr[np.argmax(tpr >= 0.95)]


@given(scores, scores)
@settings(max_examples=50, deadline=None)
def test_symmetry_and_monotone_invariance(id_scores, ood_scores):
    assert auroc(id_scores, ood_scores) + auroc(ood_scores, id_scores) == pytest.approx(1)
    for measure in (auroc, aupr, fpr_at_tpr):
        assert measure(np.exp(id_scores), np.exp(ood_scores)) == pytest.approx(measure(id_scores, ood_scores))


def test_ood_is_the_positive_class():
    low, high = np.arange(10.0), np.arange(10.0) + 100
    assert (auroc(low, high), aupr(low, high), fpr_at_tpr(low, high)) == pytest.approx((1, 1, 0))
    assert (auroc(high, low), fpr_at_tpr(high, low)) == (0, 1)
    # of 20 OOD images 19 must be flagged; the threshold then lies at 1, where 9 of 10 ID images are
    assert fpr_at_tpr(low, np.arange(20.0)) == 0.9


def test_roc_curve_has_the_area():
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.normal(size=100).round(1), rng.normal(1, 1, size=80).round(1)
    fpr, tpr = roc_curve(id_scores, ood_scores)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auroc(id_scores, ood_scores))


@pytest.mark.parametrize(("name", "measure"), [("auroc", auroc), ("aupr", aupr), ("fpr95", fpr_at_tpr)])
def test_bootstrap_against_a_naive_loop(name, measure):
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.normal(size=60).round(1), rng.normal(0.7, 1, size=40).round(1)
    naive = [measure(rng.choice(id_scores, 60), rng.choice(ood_scores, 40)) for _ in range(2000)]
    low, high = intervals(id_scores, ood_scores, 4000, seed=1)[name]
    np.testing.assert_allclose([low, high], np.quantile(naive, [0.025, 0.975]), atol=0.02)
    assert low < measure(id_scores, ood_scores) < high
    assert (low, high) == intervals(id_scores, ood_scores, 4000, seed=1)[name]
    assert intervals(id_scores, ood_scores, 4000, seed=1) != intervals(id_scores, ood_scores, 4000, seed=2)


def test_one_resample_is_the_measure_of_what_was_drawn():
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.normal(size=30).round(1), rng.normal(1, 1, size=20).round(1)
    draws = np.random.default_rng(5)
    drawn_id, drawn_ood = id_scores[draws.integers(30, size=30)], ood_scores[draws.integers(20, size=20)]
    found = intervals(id_scores, ood_scores, 1, seed=5)
    for name, measure in (("auroc", auroc), ("aupr", aupr), ("fpr95", fpr_at_tpr)):
        assert found[name] == pytest.approx([measure(drawn_id, drawn_ood)] * 2)


def test_bootstrap_interval_covers_the_truth():
    """For N(0, 1) against N(1, 1) the true AUROC is Φ(1/√2) = 0.760."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = intervals(rng.normal(size=80), rng.normal(1, 1, size=80), 200, seed=trial)["auroc"]
        covered += low <= 0.7602 <= high
    assert 180 <= covered <= 199  # 95 % nominal


def test_interval_of_perfect_separation_is_a_point():
    assert intervals(np.zeros(5), np.ones(5), 20, seed=0) == {"auroc": (1, 1), "aupr": (1, 1), "fpr95": (0, 0)}
