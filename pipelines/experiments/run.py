"""Run what is missing of a study: the pipeline's own stages, model by model, without DVC and MLflow.

A stage that has run is never repeated, a half-trained model goes on from its resume file, and everything is written
whole or not at all. So the machine may go at any second and the same command goes on, there or elsewhere with the
folder; several may run side by side in one folder (one a GPU), each taking a model that no other is at.
"""

import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from components.data.prepare import prepare
from components.errors import ConfigError, UserError
from components.files import atomic_file, read_json, write_json
from components.locks import locked
from components.training.device import choose_device, describe_hardware
from pipelines.config.params import Params
from pipelines.experiments.jobs import side_by_side
from pipelines.experiments.members import BASELINES, RUNS, STAGES, Member
from pipelines.experiments.pack import unpack
from pipelines.experiments.plan import Plan
from pipelines.experiments.tables import write_tables
from pipelines.paths import PREPARED
from pipelines.tracking.provenance import git_commit

SAVE_SECONDS = 15.0  # of training that are lost at most
REFUSED = "refused.txt"  # in the folder of a member whose settings do not go with the images: why
# what a stage reads of an earlier one, where the archive that a study comes back in may lack it
READS = {
    "embed": ("pretrain", "model.safetensors"),
    "probe": ("embed", "train.features.npy"),
    "ood": ("embed", "train.features.npy"),
    "export": ("pretrain", "model.safetensors"),
}


def run_study(
    study: Path,
    out: Path,
    models: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    changes: Mapping[str, Any] | None = None,
    name: str | None = None,
    until: str = STAGES[-1],
    jobs: int = 1,
) -> int:
    """Run the stages up to `until` of these models and seeds (default: the plan's); returns how many members failed.

    A study that came back packed goes on where its parts are. `changes` are dotted keys with values for all models.
    With `name`, they make one model another, of that name. A member that fails for a reason that a user can mend is
    told, and the others go on. One whose settings do not go with the images is told and left out, which is no failure
    unless it is all of them. `jobs` members are worked at side by side.

    Raises:
        UserError: unknown models, parameters that do not fit, results of others, or images that cannot be prepared.
    """
    unpack(study)
    plan = Plan.open(study)
    members = _members(plan, out, models, seeds, changes or {}, name)
    for member in members:
        member.check_settings()
    stages = STAGES[: STAGES.index(until) + 1]
    if stages[-1] == "export" and not _can_export():
        stages = stages[:-1]
        print("export is left to the import (it needs onnx, onnxscript and onnxruntime)", flush=True)
    if plan.baselines:
        for seed in dict.fromkeys(member.seed for member in members):
            params = plan.params(next(iter(plan.models)), seed, None if name else changes)
            _work_at(
                Member(out / BASELINES / f"seed-{seed}", params), [BASELINES], plan, _data(study, out, plan, params)
            )
    if jobs > 1:
        side_by_side(jobs, run_study, study, out, models, seeds, changes, name, until)
        return _failures(members, sum(not (_finished(m, stages[-1]) or _refused(m)) for m in members))
    failed: set[Path] = set()
    for member in members:
        data = _data(study, out, plan, member.params)  # what is wrong with the images is so for every member
        try:
            at_work = _work_at(member, stages, plan, data)
        except UserError as error:
            print(f"error: {member}: {error}", file=sys.stderr, flush=True)
            failed.add(member.folder)
            continue
        if at_work:
            write_tables(out, plan.peak_tflops)
            done = sum(_finished(m, stages[-1]) for m in members)
            print(f"{done} of {len(members)} have finished {stages[-1]}", flush=True)
    write_tables(out, plan.peak_tflops)
    if busy := sum(not (_finished(m, stages[-1]) or _refused(m)) and m.folder not in failed for m in members):
        print(f"{busy} of {len(members)} are being worked at by another process")
    return _failures(members, len(failed))


def _members(
    plan: Plan,
    out: Path,
    models: Sequence[str] | None,
    seeds: Sequence[int] | None,
    changes: Mapping[str, Any],
    name: str | None,
) -> list[Member]:
    """Seed by seed, so that an interrupted study has compared all models at some seeds."""
    chosen = models or list(plan.models)
    for model in chosen:
        if model not in plan.models:
            raise ConfigError(f"--models: no model {model!r} in the study. It has: {', '.join(plan.models)}.")
    if name is not None and len(chosen) != 1:
        raise ConfigError(f"--as {name}: changes one model into another; say which with --models.")
    if name is not None and any(key.startswith("data.") for key in changes):
        raise ConfigError(f"--as {name}: all models of a folder share their images. Change data.* for all, with --out.")
    found = []
    for seed in seeds or plan.seeds:
        for model in chosen:
            params = plan.params(model, seed, changes, name)
            often = min(SAVE_SECONDS, params.training.checkpoint_seconds)
            params = replace(params, training=replace(params.training, checkpoint_seconds=often))
            found.append(Member(out / RUNS / (name or model) / f"seed-{seed}", params))
    return found


def _data(study: Path, out: Path, plan: Plan, params: Params) -> Path:
    """The prepared images: those that came along, or made here once.

    Raises:
        ConfigError: they were made here with other settings.
    """
    if (study / PREPARED / "dataset.json").exists() and not (study / f"{PREPARED}.json").exists():
        return study / PREPARED
    place = Path(f"{PREPARED}-seed-{params.seed}") if plan.split_by_seed else PREPARED
    made_with, settings = out / f"{place}.json", json.loads(json.dumps(asdict(params.data)))
    with locked(out / place.parent / ".lock"):
        if not (out / place / "dataset.json").exists():
            print(f"preparing {out / place}", flush=True)
            seed = params.seed if plan.split_by_seed else plan.seeds[0]
            write_json(made_with, settings)
            prepare(params.data, seed, out / place, params.training.batch_size)
        elif read_json(made_with) != settings:
            raise ConfigError(f"{out / place}: made with other data.* settings. Use another --out, or delete {out}.")
    return out / place


def _work_at(member: Member, stages: Sequence[str], plan: Plan, data: Path) -> bool:
    """Run what is missing of these stages; whether anything was, and no other process is at it."""
    at_work = False
    with member.taken() as mine:
        if not mine:
            return False
        member.begin(data)
        (member.folder / REFUSED).unlink(missing_ok=True)
        for stage in stages:
            if not member.has_run(stage):
                _check_inputs(member, stage)
                began, at_work = time.monotonic(), True
                print(f"{member}: {stage}", flush=True)
                try:
                    with member.at_work(_tags(plan, member.params)):
                        module = importlib.import_module(f"pipelines.stages.{stage}")
                        module.run(member.params, *([] if stage == BASELINES else [member.model]))
                except ConfigError as error:  # such as a method that learns from labels, without labels
                    print(f"left out: {member}: {error}", file=sys.stderr, flush=True)
                    with atomic_file(member.folder / REFUSED) as temporary:
                        temporary.write_text(f"{error}\n")
                    break
                print(f"{member}: {stage} took {time.monotonic() - began:.0f} s", flush=True)
    return at_work


def _check_inputs(member: Member, stage: str) -> None:
    """Raises UserError where a finished stage's files are missing."""
    if stage in READS:
        earlier, name = READS[stage]
        path = member.folder / "outputs" / member.model / earlier / name
        if not path.exists():
            raise UserError(
                f"{stage} needs {path}, which was not packed. Go on where the study ran, or delete {member.folder} to "
                "begin this model anew."
            )


def _finished(member: Member, stage: str) -> bool:
    return member.folder.exists() and member.has_run(stage)


def _refused(member: Member) -> bool:
    return (member.folder / REFUSED).exists()


def _failures(members: Sequence[Member], failed: int) -> int:
    """What was left out is no failure, unless there is nothing else."""
    return len(members) if all(map(_refused, members)) else failed


def _can_export() -> bool:
    return all(find_spec(package) is not None for package in ("onnx", "onnxscript", "onnxruntime"))


def _tags(plan: Plan, params: Params) -> dict[str, str]:
    """Which study a run is of, which code made it, and on what."""
    hardware = describe_hardware(choose_device(params.training))
    return {**plan.source, **git_commit(), "study": plan.name, "hardware": hardware}
