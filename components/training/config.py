"""How long and how a model is trained. No tensor library is imported here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingConfig:
    """One pretraining run; every schedule counts optimizer steps."""

    steps: int
    batch_size: int  # images a step; each gives two views
    learning_rate: float  # at a batch of 256 images; the effective rate is scaled linearly
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.05
    warmup_steps: int = 50
    gradient_clip: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    log_every: int = 10
    evaluate_every: int = 100  # k-NN on validation, feature std, effective rank
    diagnose_every: int = 50  # gradient norm of each term and their cosine
    checkpoint_seconds: float = 15.0  # how much work a kill may cost

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "evaluate_every", "diagnose_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.batch_size < 2:
            raise ValueError("batch_size must be at least 2: a contrastive loss needs another image to contrast with")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})")
        if self.learning_rate <= 0 or self.gradient_clip <= 0:
            raise ValueError("learning_rate and gradient_clip must be positive")
        if self.weight_decay < 0:
            raise ValueError("weight_decay must not be negative")
