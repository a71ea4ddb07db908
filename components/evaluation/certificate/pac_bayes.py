"""PAC-Bayes bounds on the risk of a stochastic predictor: the numbers, whatever the predictor is.

**Theorem.** Let Z_1 … Z_m be independent draws from one distribution, ℓ(f, Z) a loss in [0, 1], P a distribution over
predictors f that does not depend on the Z_i. With probability 1 − δ over the Z_i, for all distributions Q over
predictors and all λ > 0 at once, the Gibbs risk R(Q) = E_{f ~ Q} E_Z ℓ(f, Z) is at most

    [1 − exp(−(λ/m) R̂(Q) − (KL(Q‖P) + ln(2√m/δ)) / m)] / [1 − exp(−λ/m)],    R̂(Q) = E_{f ~ Q} (1/m) Σ_i ℓ(f, Z_i).

It is Catoni's bound (2007) in the form of Letarte et al. (2019, arXiv 1905.10259, theorem 3), which Nozawa, Germain and
Guedj (arXiv 1910.04464) state for contrastive losses. One λ alone would need ln(1/δ); 2√m pays for all of them, because
the least of these bounds is the solution p of kl(R̂‖p) = (KL + ln(2√m/δ)) / m (Seeger 2002, Maurer 2004). So λ may be
chosen after seeing the data, and needs no grid. Nozawa et al. add 2 ln j + ln(π²/6), a union bound over the prior's
variances, among which they choose by the same data; a prior that other data chose needs none. (Their public evaluation
code adds 2√m where the theorem has ln(2√m): valid, but far looser.)

**Several tuples an image.** Where a Z is a tuple of b out of n independent images, m = ⌊n/b⌋ tuples are independent at
a time: the blocks of one partition. R̂ may nevertheless average over the partitions π: for each of them
E exp(m·kl(R̂_π‖R)) ≤ 2√m, and exp(m·kl(·‖R)) is convex, so Jensen's inequality gives the same for the average over π.
The rest of the proof (change of measure, Markov) does not change. It is Hoeffding's argument for U-statistics (1963,
section 5), in PAC-Bayes by Ralaivola et al. (2010, arXiv 0909.1933).

**Monte Carlo.** R̂(Q) is an expectation over Q and is estimated from N independent draws. By Chernoff's inequality it
is at most the p with kl(estimate‖p) = ln(1/δ′)/N with probability 1 − δ′ (Langford & Caruana 2001); the bound increases
with R̂, so with that p for R̂ it holds with probability 1 − δ − δ′.
"""

import math

import numpy as np
from torch import Tensor

BISECTIONS = 100  # more than the bits of a float64


def complexity(kl: float, m: int, delta: float) -> float:
    """KL(Q‖P) + ln(2√m/δ), in nats."""
    return kl + math.log(2 * math.sqrt(m) / delta)


def catoni(risk: float, complexity: float, m: int, lam: float | np.ndarray) -> float | np.ndarray:
    """The theorem's right-hand side at λ = `lam` for an empirical Gibbs risk, valid for every λ > 0 at once."""
    return -np.expm1(-lam / m * risk - complexity / m) / -np.expm1(-lam / m)


def best_lambda(risk: float, complexity: float, m: int) -> float:
    """The λ with the least bound: m times the slope of kl(·‖p) at R̂ = `risk` > 0, p being that least bound."""
    p = kl_inverse(risk, complexity / m)
    return m * (math.log(p / risk) + math.log1p(-risk) - math.log1p(-p)) if p < 1 else math.inf


def kl_bernoulli(q: float, p: float) -> float:
    """kl(q‖p) of two Bernoulli distributions, in nats."""
    heads = q * math.log(q / p) if q > 0 else 0.0
    tails = (1 - q) * math.log((1 - q) / (1 - p)) if q < 1 and p < 1 else (0.0 if q == 1 else math.inf)
    return heads + tails


def kl_inverse(q: float, limit: float) -> float:
    """The largest p with kl(q‖p) ≤ `limit`, rounded up: never below the exact value by more than float64 resolves."""
    low, high = q, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if kl_bernoulli(q, middle) <= limit else (low, middle)
    return high


def chernoff_upper(mean: float, draws: int, delta: float) -> float:
    """What an expectation is at most with probability 1 − `delta`, given the mean of independent draws in [0, 1].

    One side of Chernoff's inequality. The mean may be one over all partitions, as above, with m for the draws.
    """
    return kl_inverse(mean, math.log(1 / delta) / draws)


def gaussian_kl(mean: Tensor, std: Tensor, prior_mean: Tensor, prior_std: float) -> Tensor:
    """KL(N(mean, diag std²) ‖ N(prior_mean, prior_std² I)) in nats, a scalar; tensors of one shape."""
    variance = (std / prior_std) ** 2
    return 0.5 * (((mean - prior_mean) / prior_std) ** 2 + variance - 1 - variance.log()).sum()
