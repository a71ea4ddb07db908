"""How long and how a model is trained. No tensor library is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# How a run is computed, not what: up to rounding its result is the same, and it may go on under others of these.
EXECUTION = ("device", "processes", "micro_batch_size", "compile", "checkpoint_seconds")


@dataclass(frozen=True)
class TrainingConfig:
    """One pretraining run; every schedule counts optimizer steps, or follows the clock where `seconds` is given."""

    steps: int  # with `seconds` given, only warmup_steps / steps matters: the share of the budget that is warm-up
    batch_size: int  # images a step, over all processes; each gives `views` views
    learning_rate: float  # at a batch of 256 images; the effective rate is scaled linearly
    seconds: float | None = None  # train so long, whatever the speed; compiling and looks at validation do not count
    # weights that variants start from, of pictures of this or another size; {variant} stands for a variant's name
    start_from: str | None = None
    views: int = 2  # contrasted views of an image
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.05
    warmup_steps: int = 50
    gradient_clip: float = 1.0
    ema_decay: float | None = None  # the model is an exponential moving average of the weights; null: the weights
    # which step's model a run ends with, by validation: the last, or the best evaluated one. A variant without a
    # likelihood ends with its last under best_nll.
    keep: Literal["final", "best_nll", "best_knn"] = "final"
    processes: int = 1  # on CUDA one GPU each; they share a batch
    micro_batch_size: int | None = None  # images a forward pass on each process; null: its whole share of the batch
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    tf32: bool = False  # CUDA multiplies float32 matrices faster, with 10 bits of mantissa
    compile: Literal["auto", True, False] = "auto"  # torch.compile; auto: on CUDA
    deterministic: bool = False  # only deterministic kernels on CUDA (a CPU's are), slower
    log_every: int = 10
    evaluate_every: int = 100  # k-NN and likelihood on validation, feature std, effective rank
    diagnose_every: int = 50  # gradient norm of each term and their cosine
    # how much work a kill may cost, but at least 20 times what writing a resume file takes; 0: one every step
    checkpoint_seconds: float = 15.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "processes", "log_every", "evaluate_every", "diagnose_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.batch_size < 2:
            raise ValueError("batch_size must be at least 2: a contrastive loss needs another image to contrast with")
        if self.views < 2:
            raise ValueError("views must be at least 2: a view needs another of its image to agree with")
        if self.batch_size % self.processes:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of processes ({self.processes})")
        share = self.batch_size // self.processes
        if self.micro_batch_size is not None and (self.micro_batch_size < 1 or share % self.micro_batch_size):
            raise ValueError(
                f"micro_batch_size ({self.micro_batch_size}) must divide a process's share of the batch ({share})"
            )
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})")
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError("seconds must be positive")
        if self.learning_rate <= 0 or self.gradient_clip <= 0:
            raise ValueError("learning_rate and gradient_clip must be positive")
        if self.weight_decay < 0:
            raise ValueError("weight_decay must not be negative")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError("ema_decay must lie between 0 and 1, both exclusive")

    def start_of(self, variant: str) -> Path | None:
        """The weights that a variant starts from."""
        return None if self.start_from is None else Path(self.start_from.replace("{variant}", variant))

    @property
    def passes(self) -> int:
        """Forward and backward passes of a step on each process."""
        share = self.batch_size // self.processes
        return share // (self.micro_batch_size or share)
