"""Figure of a certificate: the bound against λ, and what more images would make of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.certificate.pac_bayes import catoni, complexity, kl_inverse
from components.plotting import style


def certificate_curves(metrics: Mapping[str, float], constants: Mapping[str, Any], path: Path | str) -> None:
    """Left: the theorem's right-hand side for each λ, and the risks beside it. Right: the bound that the same risk and
    KL would give from m tuples: what is certified is the dot. `metrics` and `constants`: those of a `Certificate`."""
    upper, m, price = metrics["empirical_risk_upper"], constants["m"], constants["complexity"]
    with style.figure(path, 8.4, 3.2) as canvas:
        left, right = canvas.subplots(1, 2, sharey=True)
        lam = np.geomspace(m / 20, m * 20, 400)
        left.plot(lam, catoni(upper, price, m, lam), color=style.BLUE)
        if "lambda" in metrics:
            left.plot(metrics["lambda"], metrics["bound"], "o", color=style.BLUE)
        left.set_title("Bound against λ")
        left.set_xlabel("λ")
        left.set_ylabel("contrastive error")
        tuples = np.unique(np.geomspace(max(1, m / 8), m * 128, 100).round().astype(int))
        prices = [complexity(metrics["kl"], int(t), constants["delta_theorem"]) / t for t in tuples]
        right.plot(tuples, [kl_inverse(upper, price) for price in prices], color=style.BLUE, label="bound")
        right.plot(m, metrics["bound"], "o", color=style.BLUE, label=f"certified, {metrics['bound']:.1%}")
        right.set_title("With the same risk and KL, from m tuples")
        right.set_xlabel("m")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_ylim(0, 1)
            axes.axhline(metrics["chance"], color=style.GREY, linestyle=":", label=f"guessing, {metrics['chance']:.0%}")
            axes.axhline(
                metrics["confirmed_risk"],
                color=style.ORANGE,
                label=f"on {constants['confirmed_on']}, {metrics['confirmed_risk']:.1%}",
            )
        left.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        right.legend(loc="upper right")
