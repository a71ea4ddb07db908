"""A study's results become MLflow runs, as if its stages had run here. Runs on the machine with the stack.

The stages' journals came along: they are delivered as they are. What the other machine could not make is made here
from the files that came with them (figures, and where the weights came along the ONNX file with its parity check), and
`report` writes the run of the model, exactly as in the DAG. All of this happens in the study's folder, without MLflow,
and is not repeated; only then are the journals handed over, which may be repeated without doubling anything.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import chdir
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.prepared import Prepared
from components.errors import UserError
from pipelines.invocation import VARIABLE as STARTED
from pipelines.paths import PREPARED, stage_folder
from pipelines.stages.results import has_run, record_of
from pipelines.study.members import STAGES, Member, members_of
from pipelines.study.pack import unpack
from pipelines.tracking import deliver, store
from pipelines.tracking.journal import EVENTS, tracking_folder
from pipelines.tracking.outbox import read_events
from pipelines.tracking.provenance import GIT_TAGS

if TYPE_CHECKING:
    from mlflow import MlflowClient

MEMBER = "study.run"  # tag of a model's run: the key of the run that trained it
MADE_THERE = ("hardware", "version.", "study", *GIT_TAGS)  # beginnings of tags that say where a model was made
REPORTED = STAGES[:-1]  # without which a model cannot be compared


def import_study(folder: Path, register: bool = False) -> int:
    """Bring every finished model of a study into MLflow; returns how many are not there yet.

    `folder` holds the study as it ran, or the parts that `pack` wrote. With `register`, models become versions in the
    registry.

    Raises:
        UserError: nothing to import, or the archive is damaged.
    """
    unpack(folder)
    members = [member for member in members_of(folder) if all(map(member.has_run, REPORTED))]
    if not members:
        raise UserError(f"{folder}: no model there whose stages {', '.join(REPORTED)} have run, and no study.tar.000.")
    root, data = tracking_folder(), PREPARED.resolve()
    if deliver(root=root).pending:  # also what an interrupted import has handed over
        return len(members)
    imported = _imported(root)
    for member in members:
        key = _record(member, "pretrain")["run_key"]
        if key in imported:
            print(f"{member}: already there")
            continue
        _find_images(member, data)
        with member.at_work(_tags(member, key), **{STARTED: "0"}):  # nothing came from DVC's cache
            _finish(member, register)
        for stage in (*STAGES, "report"):
            _hand_over(member, stage, root)
        print(f"{member}: imported", flush=True)
    return len(deliver(root=root, timeout=60.0).pending)


def _imported(root: Path) -> set[str]:
    """Keys of the training runs whose models MLflow has."""
    uri = store.default_uri(root)
    if store.is_missing(uri):
        return set()
    try:
        return _search(store.connect(uri, root, timeout=60.0))
    except Exception as error:  # of MLflow, which has no common type for what a network can do
        raise UserError(f"MLflow: {store.explain(error, uri)}. Nothing was imported.") from error


def _search(client: "MlflowClient") -> set[str]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: set[str] = set()
    token = None
    while True:
        page = client.search_runs(experiments, "tags.kind = 'model' and status = 'FINISHED'", page_token=token)
        found |= {run.data.tags[MEMBER] for run in page if MEMBER in run.data.tags}
        if not (token := page.token):
            return found


def _record(member: Member, stage: str) -> dict[str, Any]:
    with chdir(member.folder):
        return record_of(stage, member.model)


def _find_images(member: Member, project: Path) -> None:
    """Images for the parity check, where this project has the same ones prepared and none came along."""
    place = member.folder / PREPARED
    if (place / "test.npy").exists() or not (project / "test.npy").exists():
        return
    if Prepared.open(place).fingerprint() == Prepared.open(project).fingerprint():
        shutil.rmtree(place)
        place.symlink_to(project)


def _tags(member: Member, key: str) -> dict[str, str]:
    """Where the model was made, for the runs that begin here."""
    start = read_events(member.folder / ".tracking" / "journals" / key)[0]
    tags = {name: value for name, value in start.fields["tags"].items() if name.startswith(MADE_THERE)}
    return tags | {MEMBER: key}


def _finish(member: Member, register: bool) -> None:
    """Draw, export and report what has not been yet, in the member's folder."""
    from pipelines.stages import export, ood, pretrain, probe, report

    model, prepared = member.model, Prepared.open(PREPARED)
    figures: dict[str, Callable[[Path], None]] = {
        "pretrain": pretrain.draw,
        "probe": partial(probe.draw, prepared=prepared, variant=model),
        "ood": partial(ood.draw, prepared=prepared, variant=model),
    }
    for stage, draw in figures.items():
        folder = stage_folder(stage, model)
        if not any(folder.glob("*.png")):
            try:
                draw(folder)
            except FileNotFoundError as error:
                absent = Path(error.filename or str(error)).name  # PyArrow tells the path in its message alone
                print(f"{member}: figures of {stage} left out: {absent} was not packed")
    if not has_run("export", model):
        needed = (stage_folder("pretrain", model) / "model.safetensors", PREPARED / "test.npy")
        if missing := [path.name for path in needed if not path.exists()]:
            print(f"{member}: not exported: {' and '.join(missing)} not here")
        else:
            export.run(member.params, model)
    if not (has_run("report", model) and _is_finished(record_of("report", model)["run_key"])):
        trained = datetime.fromtimestamp(float(record_of("pretrain", model)["finished"]), UTC)
        report.run(member.params, model, f"{model} seed {member.seed} {trained:%Y-%m-%d %H:%M}", register, whole=False)


def _is_finished(key: str) -> bool:
    folder = Path(".tracking") / "journals" / key
    return folder.exists() and read_events(folder)[-1].fields.get("status") == "FINISHED"


def _hand_over(member: Member, stage: str, root: Path) -> None:
    """Copy a stage's journal to the project's, whole or not at all."""
    if not member.has_run(stage):
        return
    record = _record(member, stage)
    key = str(record["run_key"])
    target = root / "journals" / key
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    shutil.copytree(member.folder / ".tracking" / "journals" / key, temporary, dirs_exist_ok=True)
    last = read_events(temporary)[-1]
    if last.kind != "finish":  # the machine went when the results were there but not this line
        with (temporary / EVENTS).open("r+b") as events:
            events.truncate(last.end)
            events.seek(0, os.SEEK_END)
            ended = {"event": "finish", "time": int(1000 * record["finished"]), "status": "FINISHED"}
            events.write(json.dumps(ended).encode() + b"\n")
    temporary.rename(target)
