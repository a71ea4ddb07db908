"""Training to a budget in seconds, on a clock that the test moves."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.data.config import AugmentationConfig
from components.objectives.config import VariantConfig
from components.training import budget, loop, recorder
from components.training.config import TrainingConfig
from components.training.loop import Trained, pretrain
from components.training.optimizer import effective_learning_rate, schedule
from components.training.validation import PretrainData

CONFIG = TrainingConfig(
    steps=100, seconds=10.0, batch_size=16, learning_rate=0.01, warmup_steps=20, device="cpu", precision="float32",
    log_every=1, evaluate_every=3, diagnose_every=1000, checkpoint_seconds=0,
)  # fmt: skip


class Clock:
    """Stands still but for what the steps, looks and resume files of a run take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step_takes: Iterator[float] = iter(())

    def spend(self, seconds: Callable[[], float], function: Callable) -> Callable:
        def spending(*arguments):
            found = function(*arguments)
            self.now += seconds()
            return found

        return spending


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(budget, "monotonic", lambda: clock.now)
    monkeypatch.setattr(loop, "take_step", clock.spend(lambda: next(clock.step_takes), loop.take_step))
    monkeypatch.setattr(recorder, "evaluate", clock.spend(lambda: 100.0, recorder.evaluate))
    monkeypatch.setattr(recorder, "save_resume", clock.spend(lambda: 30.0, recorder.save_resume))
    return clock


@pytest.fixture
def train(clock, stripes, make_model, tmp_path) -> Callable[..., Trained]:
    images, labels = stripes
    data = PretrainData(images, (images, labels), (images[:40], labels[:40]))

    def run(step_takes: Iterator[float], on_metrics=lambda step, metrics: None, **changes) -> Trained:
        clock.step_takes = step_takes
        model = make_model(2, 8, 8, encoder_layers=1, decoder_layers=1, fresh=True)
        config, place = replace(CONFIG, **changes), tmp_path / "resume.pt"
        return pretrain(model, data, VariantConfig(1, 1), config, AugmentationConfig(), 0, place, "key", on_metrics)

    return run


@pytest.fixture
def saved(clock, monkeypatch) -> list[int]:
    """The steps after which a resume file was written, by the same clock."""
    steps: list[int] = []
    save = recorder.save_resume

    def noting(path, key, state):
        save(path, key, state)
        steps.append(state.step)

    monkeypatch.setattr(recorder, "monotonic", lambda: clock.now)
    monkeypatch.setattr(recorder, "save_resume", noting)
    return steps


def always(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def compiling(seconds: float) -> Iterator[float]:
    yield 500.0
    yield from always(seconds)


def slowing() -> Iterator[float]:
    yield from [500.0] + 4 * [1.0]
    yield from always(3.0)


@pytest.mark.parametrize(
    ("step_takes", "counted"),
    [(compiling(1.0), 10), (compiling(2.5), 4), (compiling(2.4), 5), (compiling(50.0), 1), (slowing(), 6)],
    ids=["a second a step", "slower", "over the end", "slower than the budget", "slower on the way"],
)
def test_the_steps_that_fit_are_taken_and_the_first_of_a_process_is_free(train, step_takes, counted):
    """Compilation, looks at validation and resume files cost nothing."""
    trained = train(step_takes)
    assert trained.step == trained.history[-1]["step"] == 1 + counted
    assert trained.history[-1]["trained_seconds"] >= CONFIG.seconds
    assert all(row["trained_seconds"] < CONFIG.seconds for row in trained.history[:-1])
    assert "val/knn_accuracy" in trained.history[-1]
    assert trained.images_per_second == pytest.approx(16 * counted / trained.history[-1]["trained_seconds"])


def test_the_learning_rate_follows_the_clock_whatever_the_speed(train):
    """Warm-up takes the share warmup_steps / steps of the budget; then the cosine ends where the budget does."""
    history = train(slowing()).history
    spent = [0.0, *(row["trained_seconds"] for row in history[:-1])]  # before each step
    assert spent == [0, 0, 1, 2, 3, 4, 7]
    expected = [effective_learning_rate(CONFIG) * schedule(CONFIG, 100 * seconds / 10) for seconds in spent]
    assert [row["learning_rate"] for row in history] == pytest.approx(expected)
    assert schedule(CONFIG, 100) == pytest.approx(0)
    assert all(0 < schedule(CONFIG, place / 10) <= 1 for place in range(1000))


def test_an_interrupted_run_gets_no_more_than_one_that_was_not(train, tmp_path):
    def interrupt(step: int, metrics: dict[str, float]) -> None:
        if step == 5:  # four of them are in the resume file, three were counted
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(compiling(1.0), interrupt)
    resumed = train(compiling(1.0))
    saved = torch.load(tmp_path / "resume.pt")
    assert (saved["seconds"], saved["timed_steps"], saved["step"]) == (10, 10, 12)
    assert resumed.images_per_second == pytest.approx(16)
    again = train(always(1.0))  # it is over: nothing is trained
    assert again.history == resumed.history


def test_without_a_budget_the_clock_decides_nothing(train):
    trained = train(always(1000.0), seconds=None, steps=6, warmup_steps=2)
    assert trained.step == 6
    assert "trained_seconds" not in trained.history[-1]
    assert trained.images_per_second == pytest.approx(16 / 1000)


def test_a_budget_is_positive():
    with pytest.raises(ValueError, match="seconds must be positive"):
        replace(CONFIG, seconds=0)


def test_nothing_else_is_left_beside_the_resume_file(train, tmp_path):
    train(compiling(5.0))
    assert {path.name for path in Path(tmp_path).iterdir()} == {"resume.pt"}


@pytest.mark.parametrize(
    ("every", "expected"), [(15.0, [1, 8, 15, 22, 24]), (1000.0, [11, 22, 24]), (0.0, list(range(1, 25)))]
)
def test_no_more_than_a_twentieth_of_the_time_goes_into_resume_files(train, saved, every, expected):
    """A step takes 100 seconds and a file 30, so that 600 are between two; unless one a step is asked for."""
    train(always(100.0), steps=24, seconds=None, evaluate_every=100, checkpoint_seconds=every)
    assert saved == expected
