from typing import Any

import pytest

from components.training.config import EXECUTION, TrainingConfig


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"steps": 100, "batch_size": 24, "learning_rate": 1.0, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"processes": 5}, r"batch_size \(24\) must be a multiple of processes \(5\)"),
        ({"micro_batch_size": 5}, r"micro_batch_size \(5\) must divide a process's share of the batch \(24\)"),
        (
            {"micro_batch_size": 24, "processes": 2},
            r"micro_batch_size \(24\) must divide a process's share of the batch \(12\)",
        ),
        ({"micro_batch_size": 0}, "micro_batch_size"),
        ({"processes": 0}, "processes must be at least 1"),
        ({"views": 1}, "views must be at least 2"),
        ({"ema_decay": 1.0}, "ema_decay must lie between 0 and 1"),
        ({"warmup_steps": 100}, "warmup_steps"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
    ],
)
def test_what_cannot_be_is_told(changes, told):
    with pytest.raises(ValueError, match=told):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "passes"), [({}, 1), ({"micro_batch_size": 6}, 4), ({"micro_batch_size": 6, "processes": 2}, 2)]
)
def test_passes_of_a_step(changes, passes):
    assert config(**changes).passes == passes


def test_execution_names_settings():
    assert set(EXECUTION) < set(TrainingConfig.__dataclass_fields__)
