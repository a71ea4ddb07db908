"""The sweep flow: every combination of seeds and parameter values, trained in isolation and ranked in one table."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed, State
from pydantic import Field

from components.errors import ConfigError, UserError, os_errors_explained
from components.files import read_json
from components.markdown import literal
from pipelines.config.params import TrackingConfig
from pipelines.experiments.ranking import Result, draw_results, markdown, mean, rank, write_results
from pipelines.flows.artifacts import show_outcomes
from pipelines.flows.dvc_runner import failed, flow_tags, run_dag, summary
from pipelines.flows.run_names import run_name
from pipelines.flows.workspace import Workspace, workspace
from pipelines.paths import stage_folder
from pipelines.tracking import Journal, deliver

PLACE = Path("data/sweeps")  # a folder a sweep; git ignores data/


@dataclass(frozen=True)
class Combination:
    """A seed and a value for each parameter that is varied."""

    seed: int
    point: dict[str, Any]  # dotted key → value, of all that is varied besides the seed
    overrides: dict[str, Any]

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in {"seed": self.seed, **self.point}.items())


@flow(name="sweep", flow_run_name=run_name, persist_result=False)
def sweep(
    variants: list[str] | None = None,
    seeds: list[int] | None = None,
    parameters: dict[str, list[Any]] | None = None,
    preset: str | None = None,
    project: str = ".",
    parallel: Annotated[int, Field(ge=1)] = 2,
) -> State[list[Result]]:
    """Train variants with every combination of seeds and parameter values; rank them by their mean score over seeds.

    Run again, it trains only what is missing: finished members come from DVC's cache.

    Args:
        variants: names of variants and students in params.yaml; all if none are named.
        seeds: random seeds; that of params.yaml if none are named.
        parameters: values to try at dotted keys of params.yaml, such as {"training.learning_rate": [0.006, 0.012]}.
        preset: the name of a file in presets/, to be used instead of params.yaml.
        project: the folder with dvc.yaml.
        parallel: stages that run at the same time at most; of those with `gpu: true` in their meta never more than one.

    Returns:
        One result a variant and combination. If one fails, the others still run; then the flow fails and names it.
    """
    try:
        members, kinds, tracking = _plan(variants, seeds, parameters or {}, preset, project)
    except UserError as error:
        return Failed(message=str(error))
    chosen = list(kinds)
    name = _name(members, chosen, preset)
    results: list[Result] = []
    failures: dict[str, str] = {}
    for member in members:
        state = train(member.name, member.overrides, chosen, preset, project, parallel, name, return_state=True)
        if state.is_completed():
            reports = cast(dict[str, dict[str, Any]], state.result())
            results += [Result(variant, member.seed, member.point, **reports[variant]) for variant in chosen]
        else:
            failures[member.name] = str(state.message)
    folder = Path(project) / PLACE / name
    table = markdown(results, failures)
    write_results(folder, results, table)
    if results:
        draw_results(results, kinds, folder / "ranking.png")
    create_markdown_artifact(table, key="sweep", description=literal(f"Sweep {name}"))
    _track(Path(project) / ".tracking", tracking, name, folder, results, failures)
    if failures:
        told = "; ".join(f"{member}: {message}" for member, message in failures.items())
        return Failed(message=f"{len(failures)} of {len(members)} failed. {told}", data=None)
    return Completed(message=f"{len(members)} trained or cached; the ranking is in {folder}", data=results)


@flow(name="sweep-member", flow_run_name="{name}", persist_result=False)
def train(
    name: str,
    overrides: dict[str, Any],
    variants: list[str],
    preset: str | None,
    project: str,
    parallel: int,
    sweep: str,
) -> State[dict[str, dict[str, Any]]]:
    """One member of a sweep: the variants' reports in its workspace, as variant → `run_key` and `numbers`."""
    try:
        with os_errors_explained(), workspace(project, preset, overrides) as place:
            students = place.params.students
            targets = [f"report-student@{v}" if v in students else f"report@{v}" for v in variants]
            outcomes = run_dag(place.folder, place.environment, targets, parallel=parallel, tags={"sweep": sweep})
            show_outcomes("sweep-member", outcomes, place.folder)
            if failed(outcomes):
                return Failed(message=summary(outcomes), data=None)
            return Completed(message=summary(outcomes), data={v: _report(place, v) for v in variants})
    except UserError as error:
        return Failed(message=str(error), data=None)


def _plan(
    variants: list[str] | None,
    seeds: list[int] | None,
    parameters: dict[str, list[Any]],
    preset: str | None,
    project: str,
) -> tuple[list[Combination], dict[str, str], TrackingConfig]:
    """The members, and the variants of each with what they learn by. All workspaces are made, so that a mistake is told
    before a training."""
    for key, given in {"variants": variants, "seeds": seeds, **parameters}.items():
        if given is not None and not given:
            raise ConfigError(f"{key}: expected at least one value, found an empty list.")
    if "seed" in parameters:
        raise ConfigError("parameters: give the values of `seed` as `seeds`.")
    members = []
    for values in itertools.product(*parameters.values()):
        point = dict(zip(parameters, values, strict=True))
        for seeded in [{"seed": seed} for seed in seeds] if seeds else [{}]:
            overrides = seeded | point
            with workspace(project, preset, overrides) as place:
                chosen = variants or place.params.encoders
                kinds = {variant: place.params.encoder(variant).kind for variant in chosen}
                members.append(Combination(place.params.seed, point, overrides))
    return members, kinds, place.params.tracking


def _name(members: Sequence[Combination], variants: Sequence[str], preset: str | None) -> str:
    """The same for the same sweep, so that its runs are found together however often it was resumed."""
    settings = json.dumps([preset, variants, [member.overrides for member in members]], sort_keys=True, default=str)
    return "-".join([*members[0].point, "seed", hashlib.sha256(settings.encode()).hexdigest()[:8]])


def _report(place: Workspace, variant: str) -> dict[str, Any]:
    folder = place.folder / stage_folder("report", variant)
    return {
        "run_key": read_json(folder / "record.json", "run_key"),
        "numbers": read_json(folder / "results.json", "metrics"),
    }


def _track(
    root: Path,
    tracking: TrackingConfig,
    name: str,
    folder: Path,
    results: Sequence[Result],
    failures: dict[str, str],
) -> None:
    """One MLflow run for the sweep; the runs of its members have the same tag `sweep`."""
    tags = {"kind": "sweep", "sweep": name, **flow_tags()}
    with Journal.start("sweep", name=f"sweep {name}", tags=tags, experiment=tracking.experiment, root=root) as journal:
        journal.metrics({"trained": len(results), "failed_members": len(failures)})
        if results:
            first = rank(results)[0]
            journal.metrics({"score": mean(first, "score")})
            journal.params({"variant": first[0].variant, **first[0].point})
        for file in ("ranking.md", "results.csv", *(["ranking.png"] if results else [])):
            journal.artifact(folder / file)
        if failures:
            journal.tags({"error": "; ".join(f"{member}: {message}" for member, message in failures.items())})
            journal.finish("FAILED")
    deliver(root=root)
