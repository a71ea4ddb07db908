"""Run the stages of a DVC project from a flow: one Prefect task a stage, each in a process of its own."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from uuid import UUID

from prefect import Task, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State
from prefect.utilities.urls import url_for

from components.markdown import literal
from pipelines.command_start import VARIABLE
from pipelines.flows.commands import Commands, TimeoutExceededError
from pipelines.flows.dag import Dag, Stage, read_dag
from pipelines.repro import alone_in
from pipelines.tracking.journal import TAGS_VARIABLE

PROGRESS = re.compile(r"step (?:(\d+)/(\d+)\b|\d+ \((\d+)%\))")  # what training prints, by steps or by the clock
MISTAKE = "error: "  # what a stage tells the user begins so
# what DVC suggests to someone at a keyboard, after every stage
ADVICE = ("Use `dvc push`", "To track the changes with git", "git add", "To enable auto staging", "dvc config")
ROOT = Path(__file__).parents[2]
# `python -m pipelines repro` of this code, in whatever folder: a workspace holds that of the last commit
PIPELINES = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipelines.__main__ import run; run()"
Result = Literal["cached", "run", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What became of a stage. Only "run" and "failed" took time; tries are all counted in it."""

    result: Result
    seconds: float = 0.0
    message: str = ""


def run_dag(
    folder: Path | str,
    environment: Mapping[str, str] | None = None,
    targets: Iterable[str] | None = None,
    force: bool = False,
    parallel: int = 2,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Outcome]:
    """Bring the stages that lead to `targets` up to date, independent ones side by side; for use inside a flow.

    Where a flow run or `make run` is at work in the folder, it waits until that has ended: DVC refuses two at a time.

    Args:
        folder: the one with dvc.yaml.
        environment: what the stages' commands need on top of this process's environment.
        targets: stages, or groups of them such as `pretrain`; None or empty for all.
        force: run even what is up to date.
        parallel: stages that run at the same time at most; of those with `gpu: true` in their meta never more than one.
        tags: of every MLflow run that the stages make, besides the flow run's name, id and address.

    Returns:
        Stage → outcome, upstreams first. After a failure the independent stages still run.

    Raises:
        UserError: no DVC project, an invalid dvc.yaml, or an unknown target. Nothing has run then.
    """
    environment = environment or {}
    labels = json.loads(environment.get(TAGS_VARIABLE, "{}")) | flow_tags() | dict(tags or {})
    with _turn_in(Path(folder)):
        dag = read_dag(folder, list(targets or []) or None)
        stages = Stages(dag, {**environment, TAGS_VARIABLE: json.dumps(labels)}, force, parallel)
        try:
            futures: dict[str, PrefectFuture[State[Result]]] = {}
            for stage in dag.stages.values():
                before = [futures[name] for name in stage.upstreams]
                futures[stage.name] = stages.task(stage).submit(stage, return_state=False, wait_for=before)
            for future in futures.values():
                future.wait()
        finally:  # cancelled, most likely
            stages.commands.stop()
    outcomes: dict[str, Outcome] = {}
    for name, stage in dag.stages.items():
        missing = [upstream for upstream in stage.upstreams if outcomes[upstream].result in ("failed", "skipped")]
        outcomes[name] = stages.outcomes.get(name) or _without_a_try(futures[name].state, missing)
    return outcomes


@contextmanager
def _turn_in(folder: Path) -> Iterator[None]:
    """Hold the project, unless it is none: whoever reads the DAG will tell."""
    if not (folder / ".dvc").is_dir():
        yield
        return
    context = FlowRunContext.get()
    run = f"flow run {context.flow_run.name}" if context and context.flow_run else ""
    with alone_in(folder, get_run_logger().info, note=run):
        yield


def flow_tags() -> dict[str, str]:
    """What leads from an MLflow run back to the present flow run."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        return {}
    run = context.flow_run
    tags = {"prefect.flow": context.flow.name, "prefect.flow_run": run.name, "prefect.flow_run_id": str(run.id)}
    address = url_for("flow-run", obj_id=run.id)
    return tags | ({"prefect.url": address} if address else {})


def summary(outcomes: Mapping[str, Outcome]) -> str:
    """Such as `1 run, 2 cached`, and what failed and why."""
    results = [outcome.result for outcome in outcomes.values()]
    kinds: tuple[Result, ...] = ("failed", "skipped", "run", "cached")
    counts = ", ".join(f"{results.count(kind)} {kind}" for kind in kinds if kind in results)
    failed = [f"{name}: {outcome.message}" for name, outcome in outcomes.items() if outcome.result == "failed"]
    return f"{counts}. {'; '.join(failed)}" if failed else counts


def failed(outcomes: Mapping[str, Outcome]) -> bool:
    """Whether any stage failed."""
    return any(outcome.result == "failed" for outcome in outcomes.values())


class Stages:
    """Runs the stages of one DAG and keeps what became of them.

    Each stage has its thread from the start, and waits in it: for its upstreams, then for its turn.
    """

    def __init__(self, dag: Dag, environment: Mapping[str, str], force: bool, parallel: int) -> None:
        self.dag = dag
        self.force = force
        self.commands = Commands()
        self.outcomes: dict[str, Outcome] = {}
        self.mistaken: set[str] = set()  # stages that another try would not help
        self.places = threading.Semaphore(parallel)
        self.gpu = threading.Semaphore(1)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        own = {"PATH": path, "PYTHONUNBUFFERED": "1", VARIABLE: str(time.time())}
        self.environment = os.environ | own | dict(environment)

    def task(self, stage: Stage) -> Task[[Stage], State[Result]]:
        return Task(
            self.reproduce,
            name=stage.name,
            task_run_name=stage.name,
            retries=stage.meta.retries,
            retry_condition_fn=lambda *_: not self.commands.stopped and stage.name not in self.mistaken,
            cache_policy=NO_CACHE,  # DVC's is enough
            persist_result=False,
        )

    def reproduce(self, stage: Stage) -> State[Result]:
        """One try. Prefect's pages show the state that it ends in, by name and message."""
        outcome = self.outcomes[stage.name] = self._outcome(stage)
        if outcome.result == "failed":
            return Failed(message=outcome.message)
        return Completed(name="Cached" if outcome.result == "cached" else "Completed", data=outcome.result)

    def _outcome(self, stage: Stage) -> Outcome:
        """A stage that is up to date, behind nothing but such stages, needs no process to find that out."""
        settled = all(self.outcomes[name].result == "cached" for name in stage.upstreams)
        if settled and not stage.changed and not self.force:
            get_run_logger().info("Stage '%s' didn't change", stage.name)
            return Outcome("cached")
        if not stage.meta.gpu:
            with self.places:
                return self._repro(stage)
        with self.gpu, self.places:
            return self._repro(stage)

    def _repro(self, stage: Stage) -> Outcome:
        output = Output(stage.name)
        began = time.monotonic()
        before = self.outcomes.get(stage.name, Outcome("failed")).seconds
        command = [sys.executable, "-c", PIPELINES, "repro", "--held", "--single-item", stage.name]
        if self.force:
            command.append("--force")
        try:
            code = self.commands.run(command, self.dag.root, self.environment, output, stage.meta.timeout_seconds)
            message = output.reason() if code else ""
            if output.is_mistake():
                self.mistaken.add(stage.name)
        except TimeoutExceededError:
            message = f"ended after {stage.meta.timeout_seconds:g} s, its timeout_seconds in dvc.yaml"
        seconds = before + time.monotonic() - began
        if message:
            return Outcome("failed", seconds, message)
        # one that runs every time, only to find the same again, has given those behind it nothing new to read
        return Outcome("run" if output.ran and (output.recorded or not stage.always_changed) else "cached", seconds)


class Output:
    """Takes a stage's lines: into Prefect's log, and training's steps into a progress artifact."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.ran = False
        self.recorded = False  # something new, in dvc.lock
        self.last = ""
        self.dvc_error = ""
        self.progress: UUID | None = None
        self.percent = -1
        self.logger = get_run_logger()

    def __call__(self, line: str) -> None:
        if not line or line.strip().startswith(ADVICE):
            return
        self.logger.info("%s", line)
        if line == f"Running stage '{self.stage}':":
            self.ran = True
        elif line.startswith("Updating lock file"):
            self.recorded = True
        elif line.startswith("ERROR: ") and not self.dvc_error:
            self.dvc_error = line
        elif not self.dvc_error:
            # a message of several lines counts as one
            self.last = f"{self.last} {line.strip()}" if self.last.startswith(MISTAKE) else line
            if found := PROGRESS.match(line):
                step, steps, percent = found.groups()
                self._show(int(percent) if percent else 100 * int(step) // max(int(steps), 1), line)

    def reason(self) -> str:
        """Why it failed: the last line of the stage itself, or DVC's if it didn't come to that."""
        shown = self.last if self.ran and not self.last.startswith("> ") else self.dvc_error or self.last
        return shown.removeprefix(MISTAKE).removeprefix("ERROR: ") or "failed without a word"

    def is_mistake(self) -> bool:
        """Whether the stage told of a mistake that the user has to mend."""
        return self.last.startswith(MISTAKE)

    def _show(self, percent: int, line: str) -> None:
        if percent == self.percent:
            return
        self.percent = percent
        if self.progress is None:
            key = re.sub("[^a-z0-9]+", "-", self.stage.lower()).strip("-")
            made = create_progress_artifact(percent, key=f"progress-{key}", description=literal(line))
            self.progress = cast(UUID, made)
        else:
            update_progress_artifact(self.progress, percent, description=literal(line))


def _without_a_try(state: State, missing: Sequence[str]) -> Outcome:
    """Of a stage whose command never came to an end: an upstream failed, or its task did, by a mistake of its own."""
    if state.is_pending():
        return Outcome("skipped", message=f"needs {', '.join(missing)}")
    return Outcome("failed", message=str(state.message))
