"""A PAC-Bayes certificate of an encoder: with probability 1 − δ, on new images, it errs in at most so many cases.

After Nozawa, Germain and Guedj 2020 (arXiv 1910.04464), with a prior learned from other data (Pérez-Ortiz et al. 2021,
arXiv 2007.12911) and contrast by augmented views of an image instead of by images of a class.

- **Predictor**: the frozen encoder, whose standardised features φ(x) go through a random linear head W: the Gibbs
  predictor of a Gaussian Q over its P·D weights. A view is represented by Wφ(x) / ‖Wφ(x)‖.
- **Loss** of a tuple (x, x⁺, x₁⁻ … x_k⁻): 1 where some negative is at least as similar to x as x⁺ is, else 0. x and x⁺
  are independent views of an image, the negatives views of k others. Guessing errs in k/(k+1) of the cases.
- **Prior** N(W_P, σ_P² I): W_P, σ_P and the objective's λ come from training images, of which some rehearse the bound.
- **Posterior**: minimises E_{W~Q} L̂(W) + KL(Q‖P)/λ (the paper's objective) on the images of the bound; L̂ is the
  logistic loss log₂(1 + Σ_j exp((s_j⁻ − s⁺)/τ)), which is never below the loss above.
- **Certificate**: the theorem in `pac_bayes.py`. It asks that the n images of the bound are independent draws from the
  distribution that it speaks of, and that encoder and prior owe nothing to them. A sample is an image together with
  its A views, a tuple takes k + 1 images, so m = ⌊n/(k+1)⌋.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.data.augment import apply, draw
from components.data.config import AugmentationConfig
from components.errors import UserError
from components.evaluation.certificate.pac_bayes import best_lambda, chernoff_upper, complexity, gaussian_kl, kl_inverse
from components.evaluation.certificate.random_head import (
    HEAD_SIZE,
    TEMPERATURE,
    Gaussian,
    gibbs_risk,
    learn_head,
    learn_posterior,
)
from components.evaluation.config import CertificateConfig
from components.model.gcrl import GCRL
from components.model.tokens import to_unit

MONTE_CARLO_SHARE = 0.2  # of δ, for the estimate of the empirical risk; the theorem gets the rest
OTHER_IMAGES = 2000  # at most, of those that only the prior or the confirmation sees
REHEARSAL_DRAWS = 300
PRIOR_STDS = (0.03, 0.1, 0.3, 1.0)  # candidates for σ_P, in units of W_P's root mean square …
TRADE_OFFS = (0.5, 2.0, 8.0)  # … and for λ/m; both are chosen in rehearsal
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Certificate:
    """What is certified. `metrics` and `constants` are ready for JSON."""

    metrics: dict[str, float]
    constants: dict[str, Any]

    def __str__(self) -> str:
        m, c = self.metrics, self.constants
        verdict = (
            f"at most {m['bound']:.1%} of new images are confused, with probability {c['confidence']:.0%}"
            if m["non_vacuous"]
            else f"vacuous: the bound is {m['bound']:.1%}, guessing errs in {m['chance']:.1%} of the cases"
        )
        there = f"{m['empirical_risk']:.1%} in {c['m']} tuples of {c['split']}"
        return f"certificate: {verdict} ({there}, {m['confirmed_risk']:.1%} on {c['confirmed_on']})"


def certify(views: Mapping[str, Tensor], config: CertificateConfig, seed: int) -> Certificate:
    """Certify the encoder whose features of augmented views (n, A, D) these are: those of `train`, `val` and `test`.

    Metrics: `bound`, the certificate; `empirical_risk`, the Gibbs risk on the bound's images, as estimated, and
    `empirical_risk_upper`, what it is at most; `kl` in nats; `lambda` with the least bound (left out where that is
    infinite); `fixed_head_bound`, Chernoff's bound for W_P alone from the same images, with a 1 − δ of its own;
    `confirmed_risk`, the Gibbs risk on the other split; `chance`; `non_vacuous`, 1 where the bound is below chance,
    else 0.

    Raises:
        UserError: too few images for a single tuple.
    """
    generator = torch.Generator().manual_seed(seed)
    other = "test" if config.split == "val" else "val"
    k, n = config.negatives, len(views[config.split])
    for split in ("train", config.split, other):
        needed = 3 * (k + 1) if split == "train" else k + 1
        if len(views[split]) < needed:
            raise UserError(
                f"certificate.negatives: {k} negatives need {needed} images of {split} or more, there are "
                f"{len(views[split])}. Lower it."
            )
    center = views["train"].mean((0, 1))  # (D,)
    scale = views["train"].std((0, 1))  # (D,)
    standardised = {split: (x - center) / scale.where(scale > 0, torch.ones(())) for split, x in views.items()}

    train = standardised["train"][torch.randperm(len(views["train"]), generator=generator)]
    rehearsal, rest = train.split([min(n, len(train) // 3), len(train) - min(n, len(train) // 3)])
    head = learn_head(rest, generator)
    prior_std, trade_off = rehearse(head, rehearsal, config, generator)

    prior = Gaussian(head, torch.full_like(head, prior_std))
    images, m = standardised[config.split], n // (k + 1)
    posterior = learn_posterior(prior, images, k, trade_off * m, generator)
    risk = gibbs_risk(posterior, images, k, config.draws, generator)
    fixed = gibbs_risk(Gaussian(head, torch.zeros_like(head)), images, k, config.draws, generator)
    for_theorem, for_draws = (1 - MONTE_CARLO_SHARE) * config.delta, MONTE_CARLO_SHARE * config.delta
    upper = chernoff_upper(risk, config.draws, for_draws)
    kl = float(gaussian_kl(posterior.mean, posterior.std, prior.mean, prior_std))
    price = complexity(kl, m, for_theorem)
    bound = kl_inverse(upper, price / m)
    chance = k / (k + 1)
    lam = best_lambda(upper, price, m)
    metrics = {
        "bound": bound,
        "empirical_risk": risk,
        "empirical_risk_upper": upper,
        "kl": kl,
        "fixed_head_bound": chernoff_upper(chernoff_upper(fixed, config.draws, for_draws), m, for_theorem),
        "confirmed_risk": gibbs_risk(posterior, standardised[other], k, config.draws, generator),
        "chance": chance,
        "non_vacuous": float(bound < chance),
    }
    constants = {
        **asdict(config),
        "confidence": 1 - config.delta,
        "delta_theorem": for_theorem,
        "delta_monte_carlo": for_draws,
        "complexity": price,
        "images": n,
        "m": m,
        "confirmed_on": other,
        "weights": head.numel(),
        "head_size": HEAD_SIZE,
        "temperature": TEMPERATURE,
        "prior_std": prior_std,
        "objective_lambda": trade_off * m,
        "prior_images": len(rest),
        "rehearsal_images": len(rehearsal),
        "seed": seed,
    }
    return Certificate(metrics | ({"lambda": lam} if np.isfinite(lam) else {}), constants)


def rehearse(head: Tensor, views: Tensor, config: CertificateConfig, generator: torch.Generator) -> tuple[float, float]:
    """σ_P and λ/m with the least bound on features of training images (n, A, D) that the head was not fitted to."""
    m = len(views) // (config.negatives + 1)
    best = (float("inf"), PRIOR_STDS[0], TRADE_OFFS[0])
    for std in PRIOR_STDS:
        prior = Gaussian(head, torch.full_like(head, std))
        for trade_off in TRADE_OFFS:
            posterior = learn_posterior(prior, views, config.negatives, trade_off * m, generator)
            risk = gibbs_risk(posterior, views, config.negatives, REHEARSAL_DRAWS, generator)
            kl = float(gaussian_kl(posterior.mean, posterior.std, head, std))
            best = min(best, (kl_inverse(risk, complexity(kl, m, config.delta) / m), std, trade_off))
    return best[1:]


@torch.no_grad()
def view_features(
    model: GCRL,
    images: np.ndarray,
    views: int,
    augmentation: AugmentationConfig,
    device: torch.device,
    seed: int,
) -> Tensor:
    """Features (n, A, D) of independent augmented views of images uint8 (n, H, W, C), on the CPU.

    The model must be in evaluation mode.
    """
    model.to(device)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, len(images), ROWS_AT_ONCE):
        pixels = to_unit(torch.from_numpy(np.array(images[start : start + ROWS_AT_ONCE])))  # (b, C, H, W)
        several = []
        for _ in range(views):
            drawn = draw(augmentation, len(pixels), pixels.shape[1], generator)
            tokens = model.tokenizer(apply(pixels, drawn, augmentation.padding).to(device))
            several.append(model.features(tokens).cpu())
        found.append(torch.stack(several, 1))  # (b, A, D)
    return torch.cat(found)


def some_images(images: np.ndarray, seed: int) -> np.ndarray:
    """At most OTHER_IMAGES of images (N, H, W, C), chosen at random."""
    if len(images) <= OTHER_IMAGES:
        return images
    return images[np.sort(np.random.default_rng(seed).choice(len(images), OTHER_IMAGES, replace=False))]


def require_disjoint(bound: np.ndarray, split: str, known: Iterable[np.ndarray]) -> None:
    """Raise a UserError where a picture of the bound's images (N, H, W, C) is among those that the encoder has seen."""
    seen = {_digest(image) for images in known for image in images}
    shared = sum(_digest(image) in seen for image in bound)
    if shared:
        raise UserError(
            f"split {split!r}: {shared} of its {len(bound)} pictures are training images too, so no bound from them is "
            "valid. Prepare the data again (`dvc repro prepare`), or name the other split: certificate.V.split."
        )


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
