"""What the leading process does beside the steps: it checks the losses, reports, looks at validation and saves."""

import math
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from components.errors import UserError
from components.training.budget import Stopwatch
from components.training.checkpoint import Kept, State, save_resume, seconds_to_next_save
from components.training.config import TrainingConfig
from components.training.device import peak_memory
from components.training.diagnostics import gradient_conflict
from components.training.launch import OnMetrics
from components.training.step import StepResult
from components.training.validation import PretrainData, evaluate, validate

# by rule: the metric that decides which step's model is kept, and whether more of it is better (1) or less (-1)
KEPT_BY = {"best_nll": ("val/nll_nats_per_token", -1), "best_knn": ("val/knn_accuracy", 1)}


class Recorder:
    """Follows a run from step to step. The history and the model that is kept are in its state.

    Args:
        resume: the resume file, and its key.
    """

    def __init__(
        self,
        state: State,
        data: PretrainData,
        config: TrainingConfig,
        resume: tuple[Path, str],
        device: torch.device,
        on_metrics: OnMetrics,
    ) -> None:
        self._state, self._data, self._config, self._device = state, data, config, device
        self._resume, self._on_metrics = resume, on_metrics
        self._unchecked: list[tuple[int, float, dict[str, Tensor]]] = []  # step, learning rate, losses
        self._saved_at = self._window_at = monotonic()
        self._window_from, self._pause = state.step, config.checkpoint_seconds

    def after_step(self, found: StepResult, norm: Tensor, rate: float, last: bool, watch: Stopwatch) -> None:
        """What is due after a step: `norm` is its gradient's, `rate` its learning rate.

        Raises:
            UserError: a loss or gradient since the last check is not finite.
        """
        config, done = self._config, self._state.step
        self._unchecked.append((done, rate, found.terms | {"gradient norm": norm}))
        log = last or done % config.log_every == 0
        look = last or done % config.evaluate_every == 0
        save = last or monotonic() - self._saved_at > self._pause
        if not (log or look or save or found.gradients):
            return
        _refuse_non_finite(self._unchecked)  # nothing that is not finite is shown or kept
        self._unchecked.clear()
        watch.lap()  # reading the losses waited for the GPU
        row = gradient_conflict(found.gradients)
        if look:
            row |= self._look()
        if log or row:
            self._report(row, found, norm, rate)
        if save:
            self._save()
        watch.restart()

    def _look(self) -> dict[str, float]:
        state = self._state
        model = state.average or state.model
        seen = evaluate(model, self._data, self._device)
        # a term's own weights have no average: they and the averaged model are what a run leaves behind
        seen |= validate(model, state.objective, self._data, self._device)
        _keep(state, self._config, seen)
        return seen

    def _report(self, row: dict[str, float], found: StepResult, norm: Tensor, rate: float) -> None:
        done, now = self._state.step, monotonic()
        seconds = now - self._window_at
        speed = (done - self._window_from) * self._config.batch_size / max(seconds, 1e-9)
        self._window_from, self._window_at = done, now
        row |= {k: float(v) for k, v in found.metrics.items()}
        row |= {"learning_rate": rate, "gradient_norm/all": float(norm)}
        row |= {"images_per_second": speed, "seconds": seconds, **peak_memory(self._device)}
        if self._config.seconds is not None:
            row["trained_seconds"] = self._state.seconds
        self._state.history.append({"step": done, **row})
        self._on_metrics(done, row)

    def _save(self) -> None:
        began = monotonic()
        save_resume(*self._resume, self._state)
        self._saved_at = monotonic()
        self._pause = seconds_to_next_save(self._config, self._saved_at - began)


def _keep(state: State, config: TrainingConfig, row: dict[str, float]) -> None:
    """Remember the evaluated model where the rule prefers it to the one kept so far."""
    metric, sign = KEPT_BY.get(config.keep, ("", 0))
    if metric not in row:
        return
    score = sign * row[metric]
    if state.kept is None or score > state.kept.score:
        weights = (state.average or state.model).state_dict()
        state.kept = Kept(state.step, score, {name: value.cpu().clone() for name, value in weights.items()})


def _refuse_non_finite(steps: list[tuple[int, float, dict[str, Tensor]]]) -> None:
    for step, rate, terms in steps:
        values = {name: float(loss) for name, loss in terms.items()}
        if not all(math.isfinite(v) for v in values.values()):
            told = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
            raise UserError(
                f"step {step}: loss or gradient is not finite ({told}; learning rate {rate:.3g}). "
                "Lower training.learning_rate, lengthen training.warmup_steps or set training.precision: float32. "
                "The last resume file is from before this step."
            )
