"""The pretraining loop: two augmented views an image, one causal pass, both losses."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.data.augment import apply, draw
from components.data.config import AugmentationConfig
from components.errors import UserError
from components.model.encode import encode_images
from components.model.gcrl import GCRL
from components.model.tokens import to_unit
from components.objectives.config import VariantConfig
from components.objectives.terms import losses
from components.training.checkpoint import History, load_resume, save_resume
from components.training.config import TrainingConfig
from components.training.data import batch_order, gather, step_generator
from components.training.device import choose_device, choose_dtype
from components.training.diagnostics import feature_health, gradient_conflict, knn_accuracy
from components.training.optimizer import build_optimizers, effective_learning_rate, schedule, set_learning_rate

QUICK_LOOK = 2000  # images of a split that the evaluation during training reads


@dataclass(frozen=True)
class PretrainData:
    """uint8 images (N, H, W, C); labels (M,) serve the k-NN that watches the training and nothing else."""

    images: np.ndarray
    bank: tuple[np.ndarray, np.ndarray]  # labelled training images and labels
    val: tuple[np.ndarray, np.ndarray]


def pretrain(
    model: GCRL,
    data: PretrainData,
    variant: VariantConfig,
    config: TrainingConfig,
    augmentation: AugmentationConfig,
    seed: int,
    resume: Path,
    resume_key: str,
    on_metrics: Callable[[int, dict[str, float]], None],
) -> History:
    """Train in place up to `config.steps`, from the resume file where there is one; returns the logged history.

    `on_metrics(step, metrics)` is called for each logged step, those before a resume included. On CPU a resumed run
    ends bit for bit where the uninterrupted one ends.

    Raises:
        UserError: a loss or the gradient is not finite (with step, learning rate and each term), or the resume file is
            unusable.
    """
    device = choose_device(config)
    dtype = choose_dtype(config, device)
    model.to(device)
    optimizers = build_optimizers(model, config)
    first, history = load_resume(resume, resume_key, model, optimizers)
    for old in history:
        on_metrics(int(old["step"]), {k: v for k, v in old.items() if k != "step"})
    order = batch_order(len(data.images), config.batch_size, seed)
    fetch = gather(data.images, device)
    unchecked: list[tuple[int, float, dict[str, Tensor]]] = []
    saved_at = window_at = time.monotonic()
    window_from = first

    for step in range(first, config.steps):
        model.train()
        rate = effective_learning_rate(config) * schedule(config, step)
        set_learning_rate(optimizers, rate)
        tokens, condition = two_views(model, fetch(order(step)), augmentation, step_generator(seed, step, device))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outputs = model(tokens, condition)
        terms, metrics = losses(outputs, variant)
        done = step + 1
        row: dict[str, float] = {}
        if done % config.diagnose_every == 0:
            shared = [p for p in model.encoder.parameters() if p.requires_grad]
            row |= gradient_conflict(terms, shared)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        for optimizer in optimizers:
            optimizer.step()
        unchecked.append((done, rate, {k: v.detach() for k, v in terms.items()} | {"gradient norm": norm.detach()}))

        last = done == config.steps
        log = last or done % config.log_every == 0
        look = last or done % config.evaluate_every == 0
        save = last or time.monotonic() - saved_at > config.checkpoint_seconds
        if log or look or save or row:  # nothing that is not finite is shown or kept
            _refuse_non_finite(unchecked)
            unchecked.clear()
        if look:
            row |= evaluate(model, data, device)
        if log or row:
            now = time.monotonic()
            seconds = now - window_at
            speed = (done - window_from) * config.batch_size / max(seconds, 1e-9)
            window_from, window_at = done, now
            row |= {k: float(v) for k, v in metrics.items()}
            row |= {"learning_rate": rate, "gradient_norm/all": float(norm)}
            row |= {"images_per_second": speed, "seconds": seconds}
            history.append({"step": done, **row})
            on_metrics(done, row)
        if save:
            save_resume(resume, resume_key, done, model, optimizers, history)
            saved_at = time.monotonic()
    return history


def two_views(
    model: GCRL, pixels: Tensor, augmentation: AugmentationConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Tokens (2B, T, S) of two independent views of pixels uint8 (B, H, W, C), first all first views, and their
    augmentation parameters (2B, A). Views are quantised again, so that the likelihood scores whole tokens."""
    images = to_unit(pixels).repeat(2, 1, 1, 1)  # (2B, C, H, W)
    drawn = draw(augmentation, len(images), images.shape[1], generator)
    with torch.no_grad():
        return model.tokenizer(apply(images, drawn, augmentation.padding)), drawn.condition


def evaluate(model: GCRL, data: PretrainData, device: torch.device) -> dict[str, float]:
    """A quick look at validation: k-NN accuracy, the clean likelihood in nats a token, and signs of collapse."""
    model.eval()
    bank, bank_labels = _some(*data.bank)
    images, labels = _some(*data.val)
    features, nll = encode_images(model, images, device)
    bank_features, _ = encode_images(model, bank, device)
    accuracy = knn_accuracy(bank_features, torch.from_numpy(bank_labels), features, torch.from_numpy(labels))
    metrics = {"val/knn_accuracy": accuracy, **{f"val/{k}": v for k, v in feature_health(features).items()}}
    if nll is not None:
        metrics["val/nll_nats_per_token"] = float(nll.mean())
    return metrics


def _some(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most QUICK_LOOK images and their labels, the same ones each time. Chosen at random: a split may be sorted by
    class."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:QUICK_LOOK])
    return images[chosen], labels[chosen]


def _refuse_non_finite(steps: list[tuple[int, float, dict[str, Tensor]]]) -> None:
    for step, rate, terms in steps:
        values = {name: float(loss) for name, loss in terms.items()}
        if not all(np.isfinite(v) for v in values.values()):
            told = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
            raise UserError(
                f"step {step}: loss or gradient is not finite ({told}; learning rate {rate:.3g}). "
                "Lower training.learning_rate, lengthen training.warmup_steps or set training.precision: float32. "
                "The last resume file is from before this step."
            )
