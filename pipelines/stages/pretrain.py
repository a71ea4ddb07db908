"""pretrain: train one variant of the hybrid model, from its resume file where an earlier try left one."""

import csv
import hashlib
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from components.data.prepared import Prepared
from components.evaluation.figures_training import image_rows, training_curves
from components.model.build import Architecture, build, save_weights
from components.objectives.term import TrainingSet
from components.objectives.terms import build_objective
from components.training.checkpoint import History
from components.training.config import EXECUTION, TrainingConfig
from components.training.draw import completions, samples
from components.training.loop import PretrainData, pretrain
from components.training.optimizer import effective_learning_rate
from components.training.summary import describe
from pipelines.config import Params
from pipelines.paths import PREPARED, SCRATCH
from pipelines.stages.tracked import log_data, tracked

ROOT = Path(__file__).parents[2]
# Code that decides how training goes: a resume file is good only for the code that wrote it.
TRAINING_CODE = ("components/model", "components/objectives", "components/training", "components/data/augment.py")
CURVES = "curves.csv"
SHOWN = ("nll_nats_per_token", "contrastive_loss", "val/knn_accuracy")


def run(params: Params, variant_name: str) -> None:
    """Write outputs/V/pretrain."""
    variant = params.variant(variant_name)
    settings = {
        "model": params.model,
        "training": params.training,
        "augmentation": params.augmentation,
        "variant": variant,
    }
    prepared = Prepared.open(PREPARED)
    architecture = Architecture.of(params.model, variant, prepared.image_size, prepared.palette)
    model = build(architecture, prepared.palette, params.seed)
    data = PretrainData(
        prepared.images(prepared.pretrain_split),
        bank=(prepared.images("train"), prepared.labels("train")),
        val=(prepared.images("val"), prepared.labels("val")),
        labels=prepared.labels(prepared.pretrain_split),
    )
    objective = build_objective(variant, model, TrainingSet(data.images, data.labels), params.seed)
    with tracked(params, "pretrain", variant_name, settings) as stage:
        key = _resume_key(params, variant_name, prepared)
        scratch = SCRATCH / f"pretrain-{variant_name}-{key}"
        log_data(stage, prepared, {prepared.pretrain_split: "pretraining", "val": "validation"})
        facts = describe(model, objective, architecture, params.training)
        stage.journal.params(facts)
        print("  ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
        progress = Progress(params.training)

        def on_metrics(step: int, metrics: dict[str, float]) -> None:
            stage.journal.metrics(metrics, step=step)
            progress(step, metrics)

        with stage.watched(), stage.folder(draw) as out:
            trained = pretrain(
                model,
                data,
                variant,
                params.training,
                params.augmentation,
                params.seed,
                scratch / "resume.pt",
                key,
                on_metrics,
            )
            save_weights(out.path / "model.safetensors", model, architecture)
            _write_curves(out.path / CURVES, trained.history)
            if architecture.generative:
                _write_images(out.path / "samples.npz", samples(model, params.seed))
                _write_images(out.path / "completions.npz", completions(model, data.val[0], params.seed))
            out.metrics = trained.metrics
            out.metrics["training_seconds"] = sum(row["seconds"] for row in trained.history)
            out.metrics["steps"] = trained.history[-1]["step"]
            if trained.images_per_second is not None:
                out.metrics["training_images_per_second"] = trained.images_per_second
            out.constants = {
                **facts,
                "seed": params.seed,
                "kept_step": trained.step,
                "effective_learning_rate": effective_learning_rate(params.training),
                "data_fingerprint": prepared.fingerprint(prepared.pretrain_split),
            }
        shutil.rmtree(scratch)


def draw(folder: Path) -> None:
    """The figures, from the other files in the stage's folder."""
    training_curves(_read_curves(folder / CURVES), folder / "training.png")
    for images in ("samples", "completions"):
        if (folder / f"{images}.npz").exists():
            with np.load(folder / f"{images}.npz") as rows:
                image_rows(dict(rows), folder / f"{images}.png")


class Progress:
    """One line on a terminal, or a line every few seconds elsewhere."""

    def __init__(self, config: TrainingConfig) -> None:
        self.steps, self.batch_size, self.budget = config.steps, config.batch_size, config.seconds
        self.live = sys.stderr.isatty()
        self.shown_at = 0.0
        self.latest: dict[str, float] = {}

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self.latest |= {k: metrics[k] for k in SHOWN if k in metrics}
        spent = metrics.get("trained_seconds", 0.0)
        last = step == self.steps if self.budget is None else spent >= self.budget
        if not last and time.monotonic() - self.shown_at < (0.2 if self.live else 5.0):
            return
        self.shown_at = time.monotonic()
        speed = metrics["images_per_second"]
        left = (self.steps - step) * self.batch_size / speed if self.budget is None else max(0.0, self.budget - spent)
        steps = f"{step}/{self.steps}" if self.budget is None else str(step)
        values = "  ".join(f"{name} {value:.3f}" for name, value in self.latest.items())
        line = f"step {steps}  {values}  {speed:,.0f} images/s  {left:.0f} s left"
        print(f"\r{line:<110}" if self.live else line, end="" if self.live and not last else "\n", file=sys.stderr)
        sys.stderr.flush()


def _resume_key(params: Params, variant: str, prepared: Prepared) -> str:
    """A hash of all that determines the run: settings, images, code. Not of how it is computed: a run may go on with
    another number of processes."""
    digest = hashlib.sha256()
    training = {name: value for name, value in asdict(params.training).items() if name not in EXECUTION}
    sections = [asdict(params.model), training, asdict(params.augmentation), asdict(params.variant(variant))]
    digest.update(json.dumps([params.seed, sections], sort_keys=True).encode())
    digest.update(prepared.fingerprint(prepared.pretrain_split).encode() + prepared.palette.tobytes())
    for place in (ROOT / code for code in TRAINING_CODE):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _write_images(path: Path, rows: dict[str, Any]) -> None:
    np.savez_compressed(path, **rows)


def _write_curves(path: Path, history: History) -> None:
    """Every logged number against its step; empty where a step has none."""
    columns = sorted({name for row in history for name in row} - {"step"})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *columns], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def _read_curves(path: Path) -> History:
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
