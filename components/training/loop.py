"""The pretraining loop."""

import copy
import math
import pickle
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.data.config import AugmentationConfig
from components.errors import UserError
from components.model.gcrl import GCRL
from components.objectives.config import VariantConfig
from components.objectives.term import TrainingSet
from components.objectives.terms import Objective, build_objective
from components.training.average import update_average
from components.training.budget import Stopwatch, place_in_schedule, steps_to_take
from components.training.checkpoint import History, Kept, State, load_resume, save_resume
from components.training.config import TrainingConfig
from components.training.data import batch_order, batches, step_generator
from components.training.device import (
    choose_device,
    choose_dtype,
    compilation_is_explained,
    compiles,
    forget_peak_memory,
    numerics,
    peak_memory,
)
from components.training.diagnostics import gradient_conflict
from components.training.launch import launch
from components.training.memory import memory_is_explained
from components.training.optimizer import build_optimizers, effective_learning_rate, schedule, set_learning_rate
from components.training.quick_look import PretrainData, evaluate, validate
from components.training.ranks import Ranks
from components.training.step import Execution, Found, backward
from components.training.views import draw_views

OnMetrics = Callable[[int, dict[str, float]], None]
# by rule: the metric that decides which step's model is kept, and whether more of it is better (1) or less (-1)
KEPT_BY = {"best_nll": ("val/nll_nats_per_token", -1), "best_knn": ("val/knn_accuracy", 1)}


@dataclass(frozen=True)
class Run:
    """All that decides a run, besides the images and the first weights, and where its resume file is."""

    build: Callable[[GCRL, TrainingSet, int], Objective]  # the objective of a model, a training set and a seed
    config: TrainingConfig
    augmentation: AugmentationConfig
    seed: int
    resume: Path
    resume_key: str


@dataclass(frozen=True)
class Trained:
    """What a run logged, and the step after which its model was as it is now."""

    history: History
    step: int
    images_per_second: float | None  # of the steps alone; None where only the first of a process was taken
    objective: Objective  # with what its terms own, as after the last step

    @property
    def metrics(self) -> dict[str, float]:
        """What was logged at that step."""
        row = next(row for row in self.history if row["step"] == self.step)
        return {name: value for name, value in row.items() if name != "step"}


def pretrain(
    model: GCRL,
    data: PretrainData,
    variant: VariantConfig,
    config: TrainingConfig,
    augmentation: AugmentationConfig,
    seed: int,
    resume: Path,
    resume_key: str,
    on_metrics: OnMetrics,
) -> Trained:
    """Train in place up to `config.steps` or for `config.seconds`, from the resume file where there is one.

    `on_metrics(step, metrics)` is called for each logged step, those before a resume included. On CPU a resumed run
    ends bit for bit where the uninterrupted one ends; under another number of processes or passes, up to rounding.

    Raises:
        UserError: a loss or the gradient is not finite (with step, learning rate and each term), the resume file is
            unusable, memory ran out, or one of several processes was killed.
        ConfigError: a term cannot be had of these images.
    """
    build = partial(build_objective, variant)
    return train(model, data, Run(build, config, augmentation, seed, resume, resume_key), on_metrics)


def train(model: GCRL, data: PretrainData, run: Run, on_metrics: OnMetrics) -> Trained:
    """Train in place by the run's objective; see `pretrain`."""
    config = run.config
    if config.processes > 1:
        # the weights go over as bytes: torch would put the tensors of an argument into memory that all of them share
        launch(_train_beside_others, (pickle.dumps(model.cpu()), data, run), config, on_metrics)
        state = first_state(model, data, run)
        load_resume(run.resume, run.resume_key, state)
    else:
        state = first_state(model, data, run)
        _train(state, data, run, Ranks(), on_metrics)
    if state.kept:
        model.load_state_dict(state.kept.weights)
    elif state.average:
        model.load_state_dict(state.average.state_dict())
    speed = config.batch_size * state.timed_steps / state.seconds if state.seconds else None
    return Trained(state.history, state.kept.step if state.kept else state.step, speed, state.objective)


def first_state(model: GCRL, data: PretrainData, run: Run) -> State:
    model.to(choose_device(run.config))
    objective = run.build(model, TrainingSet(data.images, data.labels), run.seed)
    average = copy.deepcopy(model).eval() if run.config.ema_decay else None
    return State(model, objective, build_optimizers(model, run.config, objective), average)


def _train_beside_others(ranks: Ranks, on_metrics: OnMetrics, model: bytes, data: PretrainData, run: Run) -> None:
    _train(first_state(pickle.loads(model), data, run), data, run, ranks, on_metrics)


def _train(state: State, data: PretrainData, run: Run, ranks: Ranks, on_metrics: OnMetrics) -> None:
    device = choose_device(run.config)
    load_resume(run.resume, run.resume_key, state)
    if ranks.leads:
        for old in state.history:
            on_metrics(int(old["step"]), {k: v for k, v in old.items() if k != "step"})
    model = state.model
    execution = execution_of(model, state.objective, run.config, device, ranks)
    forget_peak_memory(device)
    with (
        numerics(run.config, device),
        compilation_is_explained(compiles(run.config, device)),
        memory_is_explained(model, state.objective, data.images, run.config, execution, device),
    ):
        _take_steps(state, data, run, execution, device, on_metrics)


def execution_of(
    model: GCRL, objective: Objective, config: TrainingConfig, device: torch.device, ranks: Ranks
) -> Execution:
    def represent(tokens: Tensor, condition: Tensor, drawn: Tensor | None, scored: int) -> tuple[Tensor, Tensor | None]:
        return objective.represent(model, tokens, condition, drawn, scored)

    def encode(tokens: Tensor) -> Tensor:
        return objective.encode(model, tokens)

    term = objective.contrastive
    observe = term.observe if term is not None and term.observes else None
    if compiles(config, device):  # functions, not the module: the names of its weights stay as they are
        # models that are trained one after the other share them; torch would compile for eight, and for no other
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit
        represent, encode = torch.compile(represent, dynamic=False), torch.compile(encode, dynamic=False)
        observe = torch.compile(observe, dynamic=False) if observe else None
    return Execution(represent, encode, observe, choose_dtype(config, device), config.passes, ranks)


def _take_steps(
    state: State, data: PretrainData, run: Run, execution: Execution, device: torch.device, on_metrics: OnMetrics
) -> None:
    config, ranks = run.config, execution.ranks
    # one for the thread that reads, and one for this: they keep the epoch's shuffle
    order, own_order = (batch_order(len(data.images), config.batch_size, run.seed) for _ in range(2))
    remaining = steps_to_take(config, state)
    unchecked: list[tuple[int, float, dict[str, Tensor]]] = []
    saved_at = window_at = time.monotonic()
    window_from = state.step
    place = place_in_schedule(config, state, ranks)
    watch = Stopwatch(state)

    with closing(batches(data.images, order, remaining, ranks.share(config.batch_size), device)) as pixels_of_steps:
        while place < config.steps:
            done, pixels = state.step + 1, next(pixels_of_steps)
            rate = effective_learning_rate(config) * schedule(config, place)
            diagnose = done % config.diagnose_every == 0
            found, norm = take_step(state, pixels, own_order(state.step), run, execution, rate, diagnose, place)
            watch.lap()
            place = place_in_schedule(config, state, ranks)
            if not ranks.leads:
                continue
            unchecked.append((done, rate, found.terms | {"gradient norm": norm}))
            last = place == config.steps
            log = last or done % config.log_every == 0
            look = last or done % config.evaluate_every == 0
            save = last or time.monotonic() - saved_at > config.checkpoint_seconds
            if not (log or look or save or diagnose):
                continue
            _refuse_non_finite(unchecked)  # nothing that is not finite is shown or kept
            unchecked.clear()
            watch.lap()  # reading the losses waited for the GPU
            row = gradient_conflict(found.gradients)
            if look:
                row |= evaluate(state.average or state.model, data, device)
                row |= validate(state.model, state.objective, data, device)
                _keep(state, config, row)
            if log or row:
                now = time.monotonic()
                seconds = now - window_at
                speed = (done - window_from) * config.batch_size / max(seconds, 1e-9)
                window_from, window_at = done, now
                row |= {k: float(v) for k, v in found.metrics.items()}
                row |= {"learning_rate": rate, "gradient_norm/all": float(norm)}
                row |= {"images_per_second": speed, "seconds": seconds, **peak_memory(device)}
                if config.seconds is not None:
                    row["trained_seconds"] = state.seconds
                state.history.append({"step": done, **row})
                on_metrics(done, row)
            if save:
                save_resume(run.resume, run.resume_key, state)
                saved_at = time.monotonic()
            watch.restart()


def take_step(
    state: State,
    pixels: Tensor,
    images: np.ndarray,
    run: Run,
    execution: Execution,
    rate: float,
    diagnose: bool,
    place: float,
) -> tuple[Found, Tensor]:
    """One optimizer step; what it found, and the gradient's norm before clipping.

    The pixels (b, H, W, C) are this process's share, `images` (B,) the indices of the whole batch in the training set;
    `place` is the step's in the schedule.
    """
    model, objective, config = state.model, state.objective, run.config
    model.train()
    generator = step_generator(run.seed, state.step, pixels.device)
    views = draw_views(
        model,
        pixels,
        objective.views(config.views),
        run.augmentation,
        generator,
        execution.ranks,
        objective.draw,
        objective.scored_views,
        objective.contrastive,
    )
    shared = list(model.encoder.parameters()) if diagnose else []
    indices = torch.from_numpy(images).to(pixels.device, non_blocking=True)
    found = backward(model, objective, views, indices, generator, execution, shared)
    norm = torch.nn.utils.clip_grad_norm_([*model.parameters(), *objective.parameters()], config.gradient_clip)
    set_learning_rate(state.optimizers, rate)
    for optimizer in state.optimizers:
        optimizer.step()
    state.step += 1
    objective.after_step(model, min(1.0, (place + 1) / config.steps))
    if state.average:
        assert config.ema_decay is not None
        update_average(state.average, model, config.ema_decay, state.step)
    return found, norm


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
