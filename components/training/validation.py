"""What is seen of validation while training."""

from dataclasses import dataclass

import numpy as np
import torch

from components.data.augment import condition_size
from components.model.encode import encode_features, encode_images
from components.model.gcrl import GCRL
from components.model.tokens import to_unit
from components.objectives.objective import Objective
from components.training.diagnostics import feature_health, knn_accuracy

QUICK_LOOK = 2000  # images of a split that are read
BATCH = 256


@dataclass(frozen=True)
class PretrainData:
    """uint8 images (N, H, W, C). The labels (M,) of bank and val serve the k-NN that watches the training; those of the
    images (N,), −1 where one has none, serve a term that is supervised, and nothing else."""

    images: np.ndarray
    bank: tuple[np.ndarray, np.ndarray]  # labelled training images and labels
    val: tuple[np.ndarray, np.ndarray]
    labels: np.ndarray | None = None
    finer: np.ndarray | None = None  # (N, S, S, C): the same images with more pixels, out of which views are cut


def evaluate(model: GCRL, data: PretrainData, device: torch.device) -> dict[str, float]:
    """A quick look at validation: k-NN accuracy, the clean likelihood in nats a token, and signs of collapse."""
    model.eval()
    bank, bank_labels = _some(*data.bank)
    images, labels = _some(*data.val)
    features, nll = encode_images(model, images, device)
    bank_features = encode_features(model, bank, device)
    accuracy = knn_accuracy(bank_features, torch.from_numpy(bank_labels), features, torch.from_numpy(labels))
    metrics = {"val/knn_accuracy": accuracy, **{f"val/{k}": v for k, v in feature_health(features).items()}}
    if nll is not None:
        metrics["val/nll_nats_per_token"] = float(nll.mean())
    return metrics


@torch.no_grad()
def validate(model: GCRL, objective: Objective, data: PretrainData, device: torch.device) -> dict[str, float]:
    """Loss and metrics of a generative term without an exact likelihood on validation images, not augmented; what it
    draws at random is the same each time. Nothing for other terms: `evaluate` has their likelihood."""
    term = objective.generative
    if term is None or term.config.exact:
        return {}
    model.eval()
    term.eval()
    images, _ = _some(*data.val)
    generator = torch.Generator(device).manual_seed(0)
    found: dict[str, float] = {}
    for start in range(0, len(images), BATCH):
        tokens = model.tokenizer(to_unit(torch.from_numpy(images[start : start + BATCH]).to(device)))
        n = len(tokens)
        drawn = term.draw(1, n, generator)
        condition = torch.zeros(n, condition_size(images.shape[3]), device=device)
        values = term.values(model, tokens, condition, None if drawn is None else drawn[0])
        for name, value in objective.generate(values)[1].items():
            found[f"val/{name}"] = found.get(f"val/{name}", 0.0) + float(value) * n / len(images)
    term.train()
    return found


def _some(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most QUICK_LOOK images and their labels, the same ones each time. Chosen at random: a split may be sorted by
    class."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:QUICK_LOOK])
    return images[chosen], labels[chosen]
