"""The pretraining loop."""

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.data.config import AugmentationConfig
from components.model.gcrl import GCRL
from components.objectives.base import TrainingSet
from components.objectives.config import VariantConfig
from components.objectives.objective import Objective, build_objective
from components.training.budget import Stopwatch, place_in_schedule, steps_to_take
from components.training.checkpoint import History, State, load_resume
from components.training.config import TrainingConfig
from components.training.data import batch_order, batches, step_generator
from components.training.device import (
    choose_device,
    choose_dtype,
    compilation_is_explained,
    compiles,
    forget_peak_memory,
    numerics,
)
from components.training.distributed import Ranks
from components.training.ema import update_ema
from components.training.launch import OnMetrics, launch
from components.training.memory import memory_is_explained
from components.training.optimizer import build_optimizers, effective_learning_rate, schedule, set_learning_rate
from components.training.recorder import Recorder
from components.training.step import Execution, StepResult, backward
from components.training.validation import PretrainData, evaluate
from components.training.views import draw_views


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
    if not variant.trains:  # a pretrained encoder alone
        model.to(choose_device(config))
        metrics = {**evaluate(model, data, choose_device(config)), "seconds": 0.0}
        on_metrics(0, metrics)
        objective = build(model, TrainingSet(data.images, data.labels), seed)
        return Trained([{"step": 0, **metrics}], 0, None, objective)
    return train(model, data, Run(build, config, augmentation, seed, resume, resume_key), on_metrics)


def train(model: GCRL, data: PretrainData, run: Run, on_metrics: OnMetrics) -> Trained:
    """Train in place by the run's objective; see `pretrain`."""
    config = run.config
    if config.processes > 1:
        # the weights go over as bytes: torch would put the tensors of an argument into memory that all of them share
        launch(train_beside_others, (pickle.dumps(model.cpu()), data, run), config, on_metrics)
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


def train_beside_others(ranks: Ranks, on_metrics: OnMetrics, model: bytes, data: PretrainData, run: Run) -> None:
    """Train a pickled model in one of several processes; the first of them writes the resume file and reports."""
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
    order = batch_order(len(data.images), config.batch_size, run.seed)
    remaining = steps_to_take(config, state)
    place = place_in_schedule(config, state, ranks)
    recorder = Recorder(state, data, config, (run.resume, run.resume_key), device, on_metrics)
    watch = Stopwatch(state)

    with ExitStack() as readers:

        def read(images: np.ndarray) -> Iterator[Tensor]:
            # each keeps its epoch's shuffle, so a thread that reads ahead needs its own
            order = batch_order(len(images), config.batch_size, run.seed)
            share = ranks.share(config.batch_size)
            return readers.enter_context(closing(batches(images, order, remaining, share, device)))

        pixels_of_steps = read(data.images)
        finer_of_steps = repeat(None) if data.finer is None else read(data.finer)
        while place < config.steps:
            pixels, finer = next(pixels_of_steps), next(finer_of_steps)
            rate = effective_learning_rate(config) * schedule(config, place)
            diagnose = (state.step + 1) % config.diagnose_every == 0
            found, norm = take_step(state, pixels, order(state.step), run, execution, rate, diagnose, place, finer)
            watch.lap()
            place = place_in_schedule(config, state, ranks)
            if ranks.leads:
                recorder.after_step(found, norm, rate, place == config.steps, watch)


def take_step(
    state: State,
    pixels: Tensor,
    images: np.ndarray,
    run: Run,
    execution: Execution,
    rate: float,
    diagnose: bool,
    place: float,
    finer: Tensor | None = None,
) -> tuple[StepResult, Tensor]:
    """One optimizer step; what it found, and the gradient's norm before clipping.

    The pixels (b, H, W, C) are this process's share, `images` (B,) the indices of the whole batch in the training set;
    `place` is the step's in the schedule. `finer` (b, S, S, C): see `draw_views`.
    """
    model, objective, config = state.model, state.objective, run.config
    model.train()
    generator = step_generator(run.seed, state.step, pixels.device)
    views = draw_views(model, objective, pixels, config.views, run.augmentation, generator, execution.ranks, finer)
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
        update_ema(state.average, model, config.ema_decay, state.step)
    return found, norm
