"""How far a run is: by the number of its steps, or by the seconds it has trained where it has a budget of them.

With a budget, a step's place in the schedule is the share of the budget that is over before it. So the learning rate
ends at 0 when the budget does, whatever the machine's speed is and however it changes on the way; a faster machine
takes more steps. Training seconds are those of the steps alone: looks at validation, resume files and the first step of
a process, in which kernels are compiled, cost nothing. They are kept in the resume file, so a run that was interrupted
gets no more than one that was not.
"""

from time import monotonic

from components.training.checkpoint import State
from components.training.config import TrainingConfig
from components.training.distributed import Ranks

ENDLESS = 2**62  # steps


class Stopwatch:
    """Counts the steps of a process, all but its first, and their seconds in the run's state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._first = self._counted = state.step + 1
        self._since = monotonic()

    def lap(self) -> None:
        """Count what has passed since the last lap or restart, after a step or in the wait for its end."""
        now = monotonic()
        if self._state.step > self._first:
            self._state.seconds += now - self._since
            self._state.timed_steps += self._state.step - self._counted
            self._counted = self._state.step
        self._since = now

    def restart(self) -> None:
        """Leave out what has passed since the last lap."""
        self._since = monotonic()


def steps_to_take(config: TrainingConfig, state: State) -> range:
    """The steps that are left; with a budget in seconds it is the clock that ends them."""
    return range(state.step, config.steps if config.seconds is None else ENDLESS)


def place_in_schedule(config: TrainingConfig, state: State, ranks: Ranks) -> float:
    """From 0 to `config.steps`, at which the run is over. All processes go by the leading one's clock."""
    if config.seconds is None:
        return state.step
    seconds = ranks.of_leader(state.seconds)
    return config.steps * min(1.0, seconds / config.seconds)
