"""The retrain flow: new images come in, everything is reproduced in isolation, and the best model may be champion."""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from dvc.config import Config
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.states import Completed, Failed, State
from pydantic import Field

from components.data.ingest import Batch, taken_in, undo_unfinished
from components.data.sources.file_kinds import others_told
from components.errors import UserError, os_errors_explained
from components.markdown import literal, table
from pipelines.command_start import VARIABLE
from pipelines.flows.artifacts import show_outcomes
from pipelines.flows.changes import Recorded, changes, recorded
from pipelines.flows.commands import Commands
from pipelines.flows.dvc_runner import Outcome, failed, run_dag, summary
from pipelines.flows.promotion_outcome import PromotionOutcome, read_verdict, versions_compared
from pipelines.flows.run_names import run_name
from pipelines.flows.workspace import Workspace, workspace
from pipelines.tracking import store
from pipelines.tracking.journal import FOLDER_VARIABLE

EVENT = "gcrl.model.promoted"


@dataclass(frozen=True)
class Retrained:
    """What a run has come to."""

    outcomes: Mapping[str, Outcome]
    batch: Batch | None
    verdict: PromotionOutcome
    push_error: str

    @property
    def message(self) -> str:
        """One line: what came in, what ran, who is champion, whether the results are in the remote."""
        parts = [_came_in(self.batch)] if self.batch else []
        parts += [summary(self.outcomes), self.verdict.sentence()]
        if self.push_error:
            parts.append(f"`dvc push` failed ({self.push_error}), so that the results are in the local cache alone")
        return "; ".join(parts)


@flow(name="retrain", flow_run_name=run_name, persist_result=False)
def retrain(
    incoming: str | None = None,
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
    project: str = ".",
    parallel: Annotated[int, Field(ge=1)] = 2,
    push: bool = True,
    new_classes: bool = False,
) -> State[dict[str, Outcome]]:
    """Take in new images, reproduce everything in an isolated workspace, and let the gate decide about the champion.

    Images that make `prepare` or `validate` fail are moved back. The run fails where the gate does, where MLflow can't
    be told, and where the results can't be pushed; a model that is just not better than the champion is no failure.

    Args:
        incoming: a folder of new images, moved to data.labelled.folder (if they lie in one sub-folder a class) or
            data.pretrain.folder (if they lie directly inside); none are taken in without it.
        preset: the name of a file in presets/, to be used instead of params.yaml.
        overrides: values at dotted keys of params.yaml, such as {"training.steps": 800}.
        project: the folder with dvc.yaml; `incoming` is found from there.
        parallel: stages that run at the same time at most; of those with `gpu: true` in their meta never more than one.
        push: send the results to DVC's default remote, if there is one.
        new_classes: whether `incoming` may hold classes that the collection lacks.

    Returns:
        Stage → outcome.
    """
    root = Path(project).resolve()
    try:
        with os_errors_explained(), workspace(root, preset, overrides) as place:
            before = recorded(place.folder)
            # both parts count as one run: what the first has run is not "cached" in the second's reports
            environment = place.environment | {VARIABLE: str(time.time())}
            batch, outcomes = None, dict[str, Outcome]()
            if incoming is None:
                undo_unfinished(place.params.data, root)
            else:
                batch, outcomes = _take_in(root / incoming, place, environment, root, parallel, new_classes)
            outcomes = run_dag(place.folder, environment, parallel=parallel) | _run(outcomes)
            if failed(outcomes):
                show_outcomes("retrain-stages", outcomes, place.folder)
                return Failed(message=f"{f'{_came_in(batch)}; ' if batch else ''}{summary(outcomes)}")
            return _finish(place, before, outcomes, batch, push)
    except UserError as error:
        return Failed(message=str(error))


def _take_in(
    incoming: Path,
    place: Workspace,
    environment: Mapping[str, str],
    project: Path,
    parallel: int,
    new_classes: bool,
) -> tuple[Batch, dict[str, Outcome]]:
    """Put the images into their collection if the data set is valid with them."""
    for name, source in {"labelled": place.params.data.labelled, "pretrain": place.params.data.pretrain}.items():
        if source and source.folder and (place.folder / source.folder).resolve() != (project / source.folder).resolve():
            raise UserError(
                f"data.{name}.folder: {source.folder} is in git, and an isolated run uses the images as committed: it "
                "would not see new ones. Keep image collections out of git."
            )
    with taken_in(incoming, place.params.data, project, new_classes) as batch:
        outcomes = run_dag(place.folder, environment, ["validate"], parallel=parallel)
        if failed(outcomes):
            show_outcomes("retrain-stages", outcomes, place.folder)
            raise UserError(
                f"{summary(outcomes)} (in {place.folder}). "
                f"The collection is as it was: {_images(sum(batch.taken.values()))} went back to {incoming}."
            )
    return batch, outcomes


def _finish(
    place: Workspace, before: Recorded | None, outcomes: dict[str, Outcome], batch: Batch | None, push: bool
) -> State[dict[str, Outcome]]:
    """Push, tell about the champion, and settle how the run has ended."""
    tracking = Path(place.environment[FOLDER_VARIABLE])
    verdict = read_verdict(place.folder, place.params, tracking, outcomes["compare"].result == "run")
    push_error = _push(place) if push else ""
    result = Retrained(outcomes, batch, verdict, push_error)
    show_outcomes("retrain-stages", outcomes, place.folder)
    page = _page(result, changes(before, recorded(place.folder)), _versions(verdict, tracking))
    create_markdown_artifact(page, key="retrain", description=literal(result.message))
    if verdict.moved and verdict.promotion is not None:
        resource = {"prefect.resource.id": f"gcrl.model.{verdict.model}", "prefect.resource.name": verdict.model}
        version = {"gcrl.model.version": verdict.promotion["champion"]}
        emit_event(EVENT, resource | version, payload={"variant": verdict.variant, **verdict.promotion})
    if push_error or not verdict.succeeded:
        return Failed(message=result.message, data=None)
    return Completed(message=result.message, data=outcomes)


def _push(place: Workspace) -> str:
    """Send the results to the default remote, if one is configured; returns what went wrong, "" if nothing did."""
    if not Config(str(place.folder / ".dvc"))["core"].get("remote"):
        return ""
    state = push_results(place, return_state=True)
    return "" if state.is_completed() else str(state.message)


@task(name="push", task_run_name="push", cache_policy=NO_CACHE, persist_result=False)
def push_results(place: Workspace) -> State[None]:
    commands, lines = Commands(), list[str]()
    logger = get_run_logger()

    def take(line: str) -> None:
        logger.info("%s", line)
        lines.append(line)

    try:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "push"]
        code = commands.run(command, place.folder, os.environ | place.environment, take)
    finally:
        commands.stop()
    if code:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        return Failed(message=(errors or lines or ["it ended without a word"])[0], data=None)
    return Completed(message=lines[-1] if lines else "pushed")


def _versions(verdict: PromotionOutcome, tracking: Path) -> str:
    try:
        return versions_compared(verdict, tracking)
    except Exception as error:  # of MLflow, which has no common type for what a network can do
        get_run_logger().warning("No table of versions: %s", store.explain(error, store.default_uri(tracking)))
        return ""


def _page(result: Retrained, changed: list[str], versions: str) -> str:
    sections = [f"**{literal(result.verdict.sentence())}.**"]
    if result.push_error:
        sections.append(f"`dvc push` failed: {literal(result.push_error)}")
    if batch := result.batch:
        sections.append(f"## Images\n{literal(_came_in(batch))}.")
        if any(batch.taken):
            sections.append(table(["class", "taken in"], _cells(sorted(batch.taken.items())), "lr"))
        if batch.rejected:
            sections.append(table(["rejected", "why"], _cells(batch.rejected[:20])))
    sections.append(
        "\n".join(["## What changed since the last run", *(f"- {line}" for line in changed or ["nothing"])])
    )
    if versions:
        sections.append(f"## Champion against challenger\n{versions}")
    sections.append(f"## Stages\n{literal(summary(result.outcomes))}; artifact `retrain-stages` lists them.")
    return "\n\n".join(sections) + "\n"


def _cells(rows: Iterable[Iterable[object]]) -> list[list[str]]:
    return [[literal(cell) for cell in row] for row in rows]


def _came_in(batch: Batch) -> str:
    told = f"{_images(sum(batch.taken.values()))} taken into {batch.key} ({batch.collection})"
    if batch.new_classes:
        told += f", new classes: {', '.join(batch.new_classes)}"
    if batch.rejected:
        told += f", {len(batch.rejected):,} rejected to {batch.rejected_to}"
    if batch.others:
        told += f"; {others_told(batch.others)}"
    return told


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def _run(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Those that ran in the first part, which the second finds up to date."""
    return {name: outcome for name, outcome in outcomes.items() if outcome.result == "run"}
