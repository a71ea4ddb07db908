"""The reproduce flow: `dvc repro` with one Prefect task a stage.

`python -m pipelines.flows.reproduce` runs it here and now. Without PREFECT_API_URL Prefect starts a server for as long
as the flow runs; where the flow is killed, that server stays behind (the stages do not).
"""

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast
from uuid import UUID

from prefect import Task, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import FailedRun
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State
from pydantic import Field

from components.errors import UserError
from pipelines.flows.commands import Commands, TimeoutExceededError
from pipelines.flows.dag import Dag, Stage, read_dag
from pipelines.invocation import VARIABLE

PROGRESS = re.compile(r"step (\d+)/(\d+)\b")  # what training prints
Result = Literal["cached", "run", "failed", "skipped"]


class StageFailedError(Exception):
    """A stage failed or took too long. The message says which and why."""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage. Only "run" and "failed" took time; tries are all counted in it."""

    result: Result
    seconds: float = 0.0
    message: str = ""


@flow(name="reproduce", persist_result=False)
def reproduce(
    targets: list[str] | None = None,
    force: bool = False,
    parallel: Annotated[int, Field(ge=1)] = 2,
    project: str = ".",
) -> State[dict[str, Outcome]]:
    """Bring every stage, or those that lead to `targets`, up to date; independent ones side by side.

    Args:
        targets: stages, or groups of them such as `pretrain`; None or an empty list for all.
        force: run even what is up to date.
        parallel: stages that run at the same time at most; of those with `gpu: true` in their meta never more than one.
        project: the folder with dvc.yaml.

    Returns:
        Stage → outcome. After a failure the independent stages still run; then the flow fails with its message.
    """
    try:
        dag = read_dag(project, targets or None)
    except UserError as error:
        return Failed(message=str(error))
    stages = Stages(dag, force, parallel)
    try:
        futures: dict[str, PrefectFuture[Result]] = {}
        for stage in dag.stages.values():
            before = [futures[name] for name in stage.upstreams]
            futures[stage.name] = stages.task(stage).submit(stage, return_state=False, wait_for=before)
        for future in futures.values():
            future.wait()
    finally:  # cancelled, most likely
        stages.commands.stop()
    outcomes = {name: stages.outcomes.get(name) or _without_a_try(future.state) for name, future in futures.items()}
    create_markdown_artifact(_markdown(outcomes), key="reproduce", description="What became of each stage")
    failed = [f"{name}: {outcome.message}" for name, outcome in outcomes.items() if outcome.result == "failed"]
    if failed:
        return Failed(message=f"{_summary(outcomes)}. " + "; ".join(failed), data=None)
    return Completed(message=_summary(outcomes), data=outcomes)


class Stages:
    """Runs the stages of one DAG and keeps what became of them.

    Each stage has its thread from the start, and waits in it: for its upstreams, then for its turn.
    """

    def __init__(self, dag: Dag, force: bool, parallel: int) -> None:
        self.dag = dag
        self.force = force
        self.commands = Commands()
        self.outcomes: dict[str, Outcome] = {}
        self.places = threading.Semaphore(parallel)
        self.gpu = threading.Semaphore(1)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self.environment = os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", VARIABLE: str(time.time())}

    def task(self, stage: Stage) -> Task[[Stage], Result]:
        return Task(
            self.reproduce,
            name=stage.name,
            task_run_name=stage.name,
            retries=stage.meta.retries,
            retry_condition_fn=lambda *_: not self.commands.stopped,
            cache_policy=NO_CACHE,  # DVC's is enough
            persist_result=False,
        )

    def reproduce(self, stage: Stage) -> Result:
        """One try. A stage that is up to date, behind nothing but such stages, needs no process to find that out."""
        settled = all(self.outcomes[name].result == "cached" for name in stage.upstreams)
        if settled and not stage.changed and not self.force:
            get_run_logger().info("Stage '%s' didn't change", stage.name)
            self.outcomes[stage.name] = Outcome("cached")
            return "cached"
        if not stage.meta.gpu:
            with self.places:
                return self._repro(stage)
        with self.gpu, self.places:
            return self._repro(stage)

    def _repro(self, stage: Stage) -> Result:
        output = Output(stage.name)
        began = time.monotonic()
        before = self.outcomes.get(stage.name, Outcome("failed")).seconds
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage.name]
        if self.force:
            command.append("--force")
        try:
            code = self.commands.run(command, self.dag.root, self.environment, output, stage.meta.timeout_seconds)
            message = output.reason() if code else ""
        except TimeoutExceededError:
            message = f"ended after {stage.meta.timeout_seconds:g} s, its timeout_seconds in dvc.yaml"
        seconds = before + time.monotonic() - began
        if message:
            self.outcomes[stage.name] = Outcome("failed", seconds, message)
            raise StageFailedError(f"{stage.name}: {message}")
        result: Result = "run" if output.ran else "cached"
        self.outcomes[stage.name] = Outcome(result, seconds)
        return result


class Output:
    """Takes a stage's lines: into Prefect's log, and training's steps into a progress artifact."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.ran = False
        self.last = ""
        self.dvc_error = ""
        self.progress: UUID | None = None
        self.percent = -1
        self.logger = get_run_logger()

    def __call__(self, line: str) -> None:
        if not line:
            return
        self.logger.info("%s", line)
        if line == f"Running stage '{self.stage}':":
            self.ran = True
        elif line.startswith("ERROR: ") and not self.dvc_error:
            self.dvc_error = line
        elif not self.dvc_error:
            self.last = line
            if step := PROGRESS.match(line):
                self._show(int(step[1]), int(step[2]), line)

    def reason(self) -> str:
        """Why it failed: the last line of the stage itself, or DVC's if it didn't come to that."""
        shown = self.last if self.ran and not self.last.startswith("> ") else self.dvc_error or self.last
        return shown.removeprefix("error: ").removeprefix("ERROR: ") or "failed without a word"

    def _show(self, step: int, steps: int, line: str) -> None:
        percent = 100 * step // max(steps, 1)
        if percent == self.percent:
            return
        self.percent = percent
        if self.progress is None:
            key = re.sub("[^a-z0-9]+", "-", self.stage.lower()).strip("-")
            self.progress = cast(UUID, create_progress_artifact(percent, key=f"progress-{key}", description=line))
        else:
            update_progress_artifact(self.progress, percent, description=line)


def _without_a_try(state: State) -> Outcome:
    """Of a stage whose command never came to an end: an upstream failed, or its task did, by a mistake of its own."""
    return Outcome("skipped") if state.is_pending() else Outcome("failed", message=str(state.message))


def _summary(outcomes: dict[str, Outcome]) -> str:
    """Such as `1 run, 2 cached`."""
    results = [outcome.result for outcome in outcomes.values()]
    kinds: tuple[Result, ...] = ("failed", "skipped", "run", "cached")
    return ", ".join(f"{results.count(kind)} {kind}" for kind in kinds if kind in results)


def _markdown(outcomes: dict[str, Outcome]) -> str:
    rows = [
        f"| {name} | {outcome.result} | {outcome.seconds:.1f} | {outcome.message.replace('|', chr(92) + '|')} |"
        for name, outcome in outcomes.items()
    ]
    return "\n".join([f"{_summary(outcomes)}.", "", "| stage | result | seconds | why |", "|---|---|---:|---|", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 if a stage failed or a parameter is wrong."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.flows.reproduce", description="`dvc repro` by Prefect")
    parser.add_argument("targets", nargs="*", help="stages, or groups of them such as `pretrain`; all if none is named")
    parser.add_argument("--force", action="store_true", help="run even what is up to date")
    parser.add_argument(
        "--parallel", type=int, default=2, help="stages that run at the same time at most (%(default)s)"
    )
    parser.add_argument("--project", default=".", help="the folder with dvc.yaml")
    options = parser.parse_args(arguments)
    try:
        reproduce(options.targets, options.force, options.parallel, options.project)
    except FailedRun as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
