"""What the stages that train have in common: their images, a line of progress, results, the key of a resume file."""

import csv
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.data.prepared import Prepared
from components.model.build import Architecture, save_weights
from components.model.gcrl import GCRL
from components.training.checkpoint import History, saved_step
from components.training.config import EXECUTION, TrainingConfig
from components.training.device import cpu_threads
from components.training.launch import OnMetrics
from components.training.loop import PretrainData, Trained
from components.training.optimizer import effective_learning_rate
from pipelines.neighbours import Neighbours, advice
from pipelines.stages.stage_run import Outputs, Run

ROOT = Path(__file__).parents[2]
# Code that decides how training goes: a resume file is good only for the code that wrote it.
TRAINING_CODE = ("components/model", "components/objectives", "components/training", "components/data/augment.py")
WATCHED = 10.0  # seconds in which the machine's other work is measured
SHOWN = (
    *("nll_nats_per_token", "generative_loss", "contrastive_loss"),
    *("crd_loss", "kd_loss", "regression_loss", "clusterfit_loss", "val/knn_accuracy"),
)


class Progress:
    """One line on a terminal, or a line every few seconds elsewhere; none for steps that an earlier process took."""

    def __init__(self, config: TrainingConfig, earlier: int = 0) -> None:
        self.earlier = earlier
        self.steps, self.batch_size, self.budget = config.steps, config.batch_size, config.seconds
        self.live = sys.stderr.isatty()
        self.shown_at = 0.0
        self.latest: dict[str, float] = {}
        self.threads = cpu_threads(config)
        self.neighbours: Neighbours | None = Neighbours()

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self.latest |= {k: metrics[k] for k in SHOWN if k in metrics}
        if step <= self.earlier:
            return
        spent = metrics.get("trained_seconds", 0.0)
        last = step == self.steps if self.budget is None else spent >= self.budget
        if not last and time.monotonic() - self.shown_at < (0.2 if self.live else 5.0):
            return
        self.shown_at = time.monotonic()
        speed = metrics["images_per_second"]
        left = (self.steps - step) * self.batch_size / speed if self.budget is None else max(0.0, self.budget - spent)
        steps = f"{step}/{self.steps}" if self.budget is None else f"{step} ({min(spent / self.budget, 1):.0%})"
        values = "  ".join(f"{name} {value:.3f}" for name, value in self.latest.items())
        line = f"step {steps}  {values}  {speed:,.0f} images/s  {left:.0f} s left"
        print(f"\r{line:<110}" if self.live else line, end="" if self.live and not last else "\n", file=sys.stderr)
        if self.neighbours is not None and self.neighbours.seconds > WATCHED:
            if said := advice(self.neighbours.cores(), self.threads):
                print(f"\n{said}" if self.live else said, file=sys.stderr)
            self.neighbours = None
        sys.stderr.flush()


def resume_key(seed: int, sections: Sequence[Any], prepared: Prepared, code: Sequence[str], extra: bytes = b"") -> str:
    """A hash of all that determines a run: settings, images, code and whatever else it reads. Not of how it is
    computed: a run may go on with another number of processes."""
    digest = hashlib.sha256()
    settings = [
        {k: v for k, v in asdict(section).items() if not (isinstance(section, TrainingConfig) and k in EXECUTION)}
        for section in sections
    ]
    digest.update(json.dumps([seed, settings], sort_keys=True).encode())
    digest.update(prepared.training_fingerprint().encode() + prepared.palette.tobytes() + extra)
    for place in (ROOT / file for file in code):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def training_data(prepared: Prepared) -> PretrainData:
    """The images to learn from, and those that a look at validation needs."""
    return PretrainData(
        prepared.images(prepared.pretrain_split),
        bank=(prepared.images("train"), prepared.labels("train")),
        val=(prepared.images("val"), prepared.labels("val")),
        labels=prepared.labels(prepared.pretrain_split),
        finer=prepared.finer(),
    )


def announced(stage: Run, facts: Mapping[str, Any], config: TrainingConfig, resume: Path) -> OnMetrics:
    """Tell the facts of a run, and where it goes on; returns what is called for each step that it logs."""
    stage.journal.params(facts)
    print("  ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    earlier = saved_step(resume)
    if earlier:
        print(f"goes on after step {earlier}", flush=True)
    progress = Progress(config, earlier)

    def on_metrics(step: int, metrics: dict[str, float]) -> None:
        stage.journal.metrics(metrics, step=step)
        progress(step, metrics)

    return on_metrics


def write_trained(
    out: Outputs,
    model: GCRL,
    architecture: Architecture,
    trained: Trained,
    config: TrainingConfig,
    prepared: Prepared,
    constants: Mapping[str, Any],
) -> None:
    """Weights, curves and numbers of a model as a run left it; `constants` are what the stage knows besides."""
    save_weights(out.path / "model.safetensors", model, architecture)
    write_curves(out.path / "curves.csv", trained.history)
    out.metrics = numbers(trained)
    out.constants = {
        **constants,
        "kept_step": trained.step,
        "effective_learning_rate": effective_learning_rate(config),
        "data_fingerprint": prepared.fingerprint(prepared.pretrain_split),
    }


def numbers(trained: Trained) -> dict[str, float]:
    """The metrics of a stage that trains."""
    metrics = {
        **trained.metrics,
        "training_seconds": sum(row["seconds"] for row in trained.history),
        "steps": trained.history[-1]["step"],
    }
    if trained.images_per_second is not None:
        metrics["training_images_per_second"] = trained.images_per_second
    return metrics


def write_curves(path: Path, history: History) -> None:
    """Every logged number against its step; empty where a step has none."""
    columns = sorted({name for row in history for name in row} - {"step"})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *columns], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
