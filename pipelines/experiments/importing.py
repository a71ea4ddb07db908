"""A study's results become MLflow runs, as if its stages had run here. Runs on the machine with the stack.

Whoever made the study chose every byte of it: `received.py` checks all of it before anything is made of it, and what is
handed over afterwards is what was checked. The stages' journals are delivered as they are. What the other machine could
not make is made here from the files that came with them (where the weights came along, the ONNX file with its parity
check), and `report` draws the figures and writes the run of the model, exactly as in the DAG. All of this happens under
`.scratch/import/`, without MLflow, and is not repeated; only then are the journals handed over, which may be repeated
without doubling anything.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.prepared import Prepared
from components.errors import UserError
from pipelines.command_start import VARIABLE as STARTED
from pipelines.experiments.members import Member, members_of
from pipelines.experiments.pack import unpack
from pipelines.experiments.received import CARRIED, Carried, check_files, check_member
from pipelines.paths import PREPARED, SCRATCH, stage_folder
from pipelines.stages.results import has_run, record_of
from pipelines.tracking import deliver, store
from pipelines.tracking.checks import ARTIFACTS, EVENTS, journal_file, shortened
from pipelines.tracking.journal import tracking_folder
from pipelines.tracking.provenance import GIT_TAGS, user
from pipelines.tracking.spool import read_events

if TYPE_CHECKING:
    from mlflow import MlflowClient

MEMBER = "study.run"  # tag of every run that an import brings: the key of the run that trained its model
MADE_THERE = ("hardware", "version.", "study", *GIT_TAGS)  # beginnings of tags that say where a model was made
MADE_HERE = ("export", "report")  # stages

Journals = Mapping[str, Carried]  # by stage


def import_study(folder: Path, register: bool = False) -> int:
    """Bring every finished model of a study into MLflow; returns how many are not there yet.

    `folder` holds the study as it ran, or the parts that `pack` wrote. With `register`, models become versions in the
    registry.

    Raises:
        UserError: nothing to import, the archive is damaged, or a file of it is not as the stages write it. Nothing is
            handed over then.
    """
    root, data = tracking_folder(), PREPARED.resolve()
    members = read_study(folder, data)
    if deliver(root=root).pending:  # also what an interrupted import has handed over
        return len(members)
    imported = _look_at_mlflow(root, members)
    made = []
    for member, journals in members:
        key = journals["pretrain"].key
        here = Member(SCRATCH.resolve() / "import" / key, member.params)
        if key in imported:
            print(f"{member}: already there")
            shutil.rmtree(here.folder, ignore_errors=True)
            continue
        _make(here, member, journals, data, register)
        made.append((here, journals))
    for here, journals in made:
        _hand_over(here, journals, root)
        print(f"{here}: imported", flush=True)
    return len(deliver(root=root, timeout=60.0).pending)


def read_study(folder: Path, project_data: Path) -> list[tuple[Member, Journals]]:
    """Unpack a study and check all of it; returns the models that are finished, with their stages' journals.

    Raises:
        UserError: there is none, or something is not as the stages write it.
    """
    unpack(folder)
    check_files(folder, project_data)
    begun = [(member, check_member(member)) for member in members_of(folder)]
    keys = [journal.key for _, journals in begun for journal in journals.values()]
    if doubled := {key for key in keys if keys.count(key) > 1}:
        raise UserError(f"{folder}: two stages of the study name the same run: {', '.join(doubled)}.")
    finished: list[tuple[Member, Journals]] = [
        (member, journals) for member, journals in begun if set(journals) == set(CARRIED)
    ]
    if not finished:
        raise UserError(f"{folder}: no model there whose stages {', '.join(CARRIED)} have run, and no study.tar.000.")
    return finished


def _look_at_mlflow(root: Path, members: Sequence[tuple[Member, Journals]]) -> set[str]:
    """Keys of the training runs whose models MLflow has.

    Raises:
        UserError: MLflow cannot be asked; or a run of the study has the key of one that did not come with it.
    """
    for _, journals in members:
        for journal in journals.values():
            waiting = root / "journals" / journal.key
            if waiting.exists():
                _check_same(journal.key, read_events(waiting)[0].fields["tags"], journals)
    uri = store.default_uri(root)
    if store.is_missing(uri):
        return set()
    try:
        client = store.connect(uri, root, timeout=60.0)
        for _, journals in members:
            for journal in journals.values():
                for run in store.find_runs(client, journal.key):
                    _check_same(journal.key, run.data.tags, journals)
        return _search(client)
    except UserError:
        raise
    except Exception as error:  # of MLflow, which has no common type for what a network can do
        raise UserError(f"MLflow: {store.explain(error, uri)}. Nothing was imported.") from error


def _check_same(key: str, tags: Mapping[str, str], journals: Journals) -> None:
    """Raises UserError unless the tags are those of a run that an import of the same model brought."""
    if tags.get(MEMBER) != journals["pretrain"].key:
        raise UserError(
            f"{journals['pretrain'].folder}: the study has a run {key}, and so has this project, from elsewhere. That "
            "one stays as it is; nothing was imported."
        )


def _search(client: "MlflowClient") -> set[str]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: set[str] = set()
    token = None
    while True:
        page = client.search_runs(experiments, "tags.kind = 'model' and status = 'FINISHED'", page_token=token)
        found |= {run.data.tags[MEMBER] for run in page if MEMBER in run.data.tags}
        if not (token := page.token):
            return found


def _make(here: Member, member: Member, journals: Journals, data: Path, register: bool) -> None:
    """Make what the import makes of a member, in a folder of this project's own.

    Raises:
        UserError: a file that came along cannot be used.
    """
    _lay_out(here, member, data)
    key = journals["pretrain"].key
    start = journals["pretrain"].events[0]
    tags = {name: value for name, value in start.fields["tags"].items() if name.startswith(MADE_THERE)}
    try:
        with here.at_work(tags | {MEMBER: key}, **{STARTED: "0"}):  # nothing came from DVC's cache
            _finish(here, register)
    except Exception as error:  # of NumPy, PyArrow, PyTorch …, which have no common type for what is wrong with a file
        shutil.rmtree(here.folder, ignore_errors=True)
        told = shortened(error if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        raise UserError(f"{member.folder}: its files cannot be used ({told}). Nothing was imported.") from error


def _lay_out(here: Member, member: Member, project: Path) -> None:
    """A folder in which stages find what came along; it belongs to this project, so that what lies there beside the
    links to those files was made here.

    The images are this project's, where they are the same and none came along.
    """
    for old in [path for path in here.folder.rglob("*") if path.is_symlink()]:
        old.unlink()
    for stage in CARRIED:
        place = stage_folder(stage, member.model)
        source = (member.folder / place).resolve()
        for path in (path for path in source.rglob("*") if path.is_file()):
            link = here.folder / place / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path)
    images = (member.folder / PREPARED).resolve()
    if not (images / "test.npy").exists() and (project / "test.npy").exists():
        same = Prepared.open(images).fingerprint() == Prepared.open(project).fingerprint()
        images = project if same else images
    link = here.folder / PREPARED
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(images)


def _finish(here: Member, register: bool) -> None:
    """Export and report what has not been yet, in the present folder."""
    from pipelines.stages import export, report

    model = here.model
    if not has_run("export", model):
        needed = (stage_folder("pretrain", model) / "model.safetensors", PREPARED / "test.npy")
        if missing := [path.name for path in needed if not path.exists()]:
            print(f"{here}: not exported: {' and '.join(missing)} not here")
        else:
            export.run(here.params, model)
    if not (has_run("report", model) and _is_finished(record_of("report", model)["run_key"])):
        trained = datetime.fromtimestamp(float(record_of("pretrain", model)["finished"]), UTC)
        report.run(here.params, model, f"{model} seed {here.seed} {trained:%Y-%m-%d %H:%M}", register, whole=False)


def _is_finished(key: str) -> bool:
    folder = Path(".tracking") / "journals" / key
    return folder.exists() and read_events(folder)[-1].fields.get("status") == "FINISHED"


def _hand_over(here: Member, journals: Journals, root: Path) -> None:
    """Bring the journals of a model to the project's, each whole or not at all; the report's is the last."""
    for journal in journals.values():
        with _brought(root, journal.key) as folder:
            if folder:
                _write(journal, folder, journals["pretrain"].key)
    for stage in (stage for stage in MADE_HERE if here.has_run(stage)):
        with chdir(here.folder):
            key = record_of(stage, here.model)["run_key"]
        with _brought(root, key) as folder:
            if folder:
                shutil.copytree(here.folder / ".tracking" / "journals" / key, folder, dirs_exist_ok=True)
    shutil.rmtree(here.folder)


@contextmanager
def _brought(root: Path, key: str) -> Iterator[Path | None]:
    """A folder to be filled, which then becomes the journal of this key; None where there is one already."""
    target = root / "journals" / key
    if target.exists():
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    yield temporary
    temporary.chmod(0o755)
    temporary.rename(target)


def _write(journal: Carried, folder: Path, member: str) -> None:
    """Write the events that were checked, and copy the files that they name.

    The run is marked as one of a study, and belongs to whoever imports it. A stage whose machine went when the results
    were there, but not the last event, has finished.
    """
    lines: list[dict[str, Any]] = []
    for event in journal.events:
        fields = event.fields
        if event.kind == "start":
            fields = fields | {"tags": {**fields["tags"], "mlflow.user": user(), MEMBER: member}}
        if event.kind == "artifact":
            place = Path(ARTIFACTS) / str(len(lines)) / Path(fields["path"]).name
            (folder / place).parent.mkdir(parents=True)
            shutil.copyfile(journal_file(journal.folder, fields["path"]), folder / place)
            fields = fields | {"path": str(place)}
        lines.append({"event": event.kind, "time": event.time, **fields})
    if journal.events[-1].kind != "finish":
        lines.append({"event": "finish", "time": int(1000 * journal.finished), "status": "FINISHED"})
    (folder / EVENTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
