"""How much do frozen features know of the classes? Linear, k-NN and few-label probes.

A probe is fitted on the training split; every choice (penalty, k, temperature) is made on the validation split; the
test split is looked at once.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from components.errors import UserError
from components.evaluation.config import ProbeConfig
from components.evaluation.probes.blas_threads import threads_for
from components.evaluation.probes.calibration import Reliability, fit_temperature, negative_log_likelihoods, reliability
from components.evaluation.probes.linear_probe import Labelled, LinearProbe
from components.evaluation.probes.neighbours import Neighbours

# Penalty of the few-label probes. A handful of labels leaves nothing to choose it on, so it is the same for every
# variant: in the middle of the flat optimum for one to ten labels a class on standardised features.
FEW_LABEL_L2 = 0.1
ROWS_AT_ONCE = 4096  # that are standardised in double precision


@dataclass(frozen=True)
class ProbeResult:
    """Everything the probes found out. `metrics` and `constants` are ready for JSON."""

    metrics: dict[str, float]
    constants: dict[str, Any]
    probe: LinearProbe
    confusion: np.ndarray  # (K, K) counts on test: row = true class, column = predicted class
    reliability: Reliability  # of the test split, as trained
    reliability_calibrated: Reliability  # of the test split, after temperature scaling
    few_label: dict[int, np.ndarray]  # labels a class → test accuracy of each draw, (draws,)


def run_probes(train: Labelled, val: Labelled, test: Labelled, config: ProbeConfig, seed: int) -> ProbeResult:
    """Fit every probe and measure it on `test`.

    Metrics are shares between 0 and 1 (accuracy, ece) or nats (nll); `_se` is a standard error over test samples
    (binomial for accuracies), `few_label_S_std` the standard deviation over draws of S labels a class.
    Raises UserError where a class has no training image or the features don't fit together.
    """
    _check(train, val, test)
    probe = fit_linear(train, val, config.l2)
    logits = probe.logits(test.features)  # (N, K)
    calibrated = logits / probe.temperature  # (N, K)
    n = len(test.labels)
    linear_accuracy = accuracy(logits, test.labels)
    nll, nll_calibrated = (negative_log_likelihoods(x, test.labels) for x in (logits, calibrated))  # (N,) each
    bins_before, bins_after = (_reliability(x, test.labels, config.calibration_bins) for x in (logits, calibrated))
    knn_accuracy, k = knn_probe(train, val, test, config.k)
    metrics = {
        "linear_accuracy": linear_accuracy,
        "linear_accuracy_se": _binomial_se(linear_accuracy, n),
        "linear_nll": float(nll.mean()),
        "linear_nll_se": float(nll.std() / np.sqrt(n)),
        "linear_nll_calibrated": float(nll_calibrated.mean()),
        "linear_nll_calibrated_se": float(nll_calibrated.std() / np.sqrt(n)),
        "linear_ece": bins_before.expected_calibration_error,
        "linear_ece_calibrated": bins_after.expected_calibration_error,
        "temperature": probe.temperature,
        "l2": probe.l2,
        "knn_accuracy": knn_accuracy,
        "knn_accuracy_se": _binomial_se(knn_accuracy, n),
        "knn_k": k,
    }
    few_label = few_label_probes(train, test, config.shots, config.draws, seed)
    for shots, accuracies in few_label.items():
        metrics[f"few_label_{shots}_accuracy"] = float(accuracies.mean())
        metrics[f"few_label_{shots}_std"] = float(accuracies.std(ddof=1)) if len(accuracies) > 1 else 0.0
    classes = len(probe.bias)
    pairs = test.labels * classes + logits.argmax(axis=1)  # (N,)
    return ProbeResult(
        metrics=metrics,
        constants={**dataclasses.asdict(config), "few_label_l2": FEW_LABEL_L2, "seed": seed},
        probe=probe,
        confusion=np.bincount(pairs, minlength=classes**2).reshape(classes, classes),
        reliability=bins_before,
        reliability_calibrated=bins_after,
        few_label=few_label,
    )


def fit_linear(train: Labelled, val: Labelled, penalties: tuple[float, ...]) -> LinearProbe:
    """Logistic regression on standardised features, minimising mean cross-entropy + l2/2 · ‖weights‖².

    The penalty is the one with the best validation accuracy, ties going to the lower validation NLL; the temperature
    minimises the validation NLL. Neither validation nor test samples are fitted on.
    """
    best: tuple[tuple[float, float], LinearProbe] | None = None
    standardisation = _Standardisation.of(train.features)
    standardised = Labelled(standardisation.apply(train.features), train.labels)
    for l2 in penalties:
        probe = _logistic_regression(standardised, standardisation, l2)
        logits = probe.logits(val.features)  # (N, K)
        quality = (accuracy(logits, val.labels), -float(negative_log_likelihoods(logits, val.labels).mean()))
        if best is None or quality > best[0]:
            best = quality, dataclasses.replace(probe, temperature=fit_temperature(logits, val.labels))
    assert best is not None  # the configuration lists one penalty or more
    return best[1]


def knn_probe(train: Labelled, val: Labelled, test: Labelled, candidates: tuple[int, ...]) -> tuple[float, int]:
    """Accuracy on test of the k nearest training samples' vote, and the k with the best accuracy on validation.

    A neighbour's vote weighs 1 + its cosine similarity, which settles draws.
    Raises UserError where every candidate is larger than the training split.
    """
    usable = sorted(k for k in candidates if k <= len(train.labels))
    if not usable:
        raise UserError(f"probe.k: {list(candidates)} all exceed the {len(train.labels)} training images. Lower one.")
    search = Neighbours(train.features)

    def accuracies(split: Labelled, ks: list[int]) -> list[float]:
        distances, indices = search.nearest(split.features, max(ks))  # (N, max k) each
        weights = 2 - distances**2 / 2  # (N, max k): 1 + cosine similarity
        votes = np.zeros((len(split.labels), int(train.labels.max()) + 1))  # (N, K)
        found, voted, rows = [], 0, np.arange(len(split.labels))
        for k in ks:
            for neighbour in range(voted, k):
                votes[rows, train.labels[indices[:, neighbour]]] += weights[:, neighbour]
            voted = k
            found.append(accuracy(votes, split.labels))
        return found

    k = usable[int(np.argmax(accuracies(val, usable)))]
    return accuracies(test, [k])[0], k


def few_label_probes(
    train: Labelled, test: Labelled, shots: tuple[int, ...], draws: int, seed: int
) -> dict[int, np.ndarray]:
    """Test accuracy of linear probes on few labels a class, one a random draw: {labels a class: (draws,)}.

    Features are standardised by the whole training split, which needs no labels; the penalty is FEW_LABEL_L2.
    A class with fewer training samples than asked for gives all it has.
    """
    standardisation = _Standardisation.of(train.features)
    of_class = [np.flatnonzero(train.labels == c) for c in range(int(train.labels.max()) + 1)]
    results = {}
    for count in shots:
        accuracies = []
        for draw in range(draws):
            rng = np.random.default_rng((seed, count, draw))
            chosen = np.concatenate([rng.permutation(members)[:count] for members in of_class])
            few = Labelled(standardisation.apply(train.features[chosen]), train.labels[chosen])
            probe = _logistic_regression(few, standardisation, FEW_LABEL_L2)
            accuracies.append(accuracy(probe.logits(test.features), test.labels))
        results[count] = np.array(accuracies)  # (draws,)
    return results


class _Standardisation(NamedTuple):
    mean: np.ndarray  # (D,)
    scale: np.ndarray  # (D,), 1 where a feature is constant

    @classmethod
    def of(cls, features: np.ndarray) -> "_Standardisation":
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        for start in range(0, len(features), ROWS_AT_ONCE):
            scaler.partial_fit(features[start : start + ROWS_AT_ONCE])
        return cls(scaler.mean_, scaler.scale_)

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Standardised features, float32 (N, D), without a float64 copy of them all on the way."""
        standardised = np.empty(features.shape, np.float32)
        for start in range(0, len(features), ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            standardised[block] = (features[block] - self.mean) / self.scale
        return standardised


def _logistic_regression(standardised: Labelled, standardisation: _Standardisation, l2: float) -> LinearProbe:
    """A probe on raw features, fitted to standardised ones."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = standardisation
    features, labels = standardised
    # scikit-learn minimises C · sum of the losses + ‖weights‖² / 2
    with threads_for(features.size):
        model = LogisticRegression(C=1 / (l2 * len(labels)), max_iter=1000).fit(features, labels)
    weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)  # (K, D), (K,)
    if len(model.classes_) == 2:  # scikit-learn keeps one logit z for two classes; (−z/2, z/2) has the same softmax
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scale
    return LinearProbe(weight, bias - weight @ mean, temperature=1.0, l2=l2)


def _reliability(logits: np.ndarray, labels: np.ndarray, bins: int) -> Reliability:
    from scipy.special import softmax

    return reliability(softmax(logits, axis=1), labels, bins)


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows of `scores` (N, K) whose largest is at the label, of `labels` (N,)."""
    return float((scores.argmax(axis=1) == labels).mean())


def _binomial_se(share: float, n: int) -> float:
    return float(np.sqrt(share * (1 - share) / n))


def _check(train: Labelled, val: Labelled, test: Labelled) -> None:
    present = np.unique(train.labels)
    if len(present) < 2 or not np.array_equal(present, np.arange(len(present))):
        raise UserError(
            f"split 'train': its class numbers are {present.tolist()}; a probe needs two classes or more, "
            "numbered 0, 1, 2, … without a gap. Check the labels of the prepared data."
        )
    for name, split in (("train", train), ("val", val), ("test", test)):
        if len(split.features) != len(split.labels):
            raise UserError(
                f"split {name!r}: {len(split.features)} features for {len(split.labels)} labels. "
                "The prepared data changed since the features were computed: run `dvc repro`."
            )
        if len(split.labels) == 0 or split.labels.min() < 0 or split.labels.max() >= len(present):
            raise UserError(
                f"split {name!r}: its labels must lie between 0 and {len(present) - 1}, the classes of the training "
                "split, and there must be one at least. Check the labels of the prepared data."
            )
