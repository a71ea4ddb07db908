"""What must hold of a study that somebody else may have made, before anything is read of it, written or sent.

A study's files are claims: whoever made them chose every byte. So each file that the import reads has the place, the
kind and the content that the stages write, and nothing else is used.
"""

import csv
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from components.dataclass_reader import read_dataclass
from components.errors import UserError
from components.files import read_json
from pipelines.config.params import validate_params
from pipelines.experiments.members import RUNS, SETTINGS, STAGES, Member
from pipelines.paths import PREPARED
from pipelines.tracking.checks import EVENTS, check_event, check_key, check_names, check_text, journal_file, shortened
from pipelines.tracking.provenance import GIT_TAGS
from pipelines.tracking.spool import Event, read_events

# whose results and journals are brought; an exported model is made here, from the weights
CARRIED = tuple(stage for stage in STAGES if stage != "export")
KINDS = ("start", "metrics", "params", "tags", "dataset", "artifact", "nest", "finish")  # of events, in those journals
SUFFIXES = (".json", ".csv", ".md", ".png")  # of files that MLflow gets from those journals
TAGS = (
    *("stage", "variant", "study", "hardware", "error", "project_run", "dvc.stage", "dvc.stage_hash", *GIT_TAGS),
    *("mlflow.source.name", "mlflow.source.type", "mlflow.user", "mlflow.runColor"),
)
TAG_FAMILIES = ("version.", "hardware.")
MAX_UNZIPPED = 2**30  # bytes in an .npz file
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
OWN = "Only a study's own files are imported: put a copy in its place."
LATEST = 253_402_300_799  # seconds since 1970: the year 9999

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """record.json."""

    run_key: str
    stage: str
    variant: str | None
    finished: float  # seconds since 1970
    seconds: float
    provenance: dict[str, str]

    def __post_init__(self) -> None:
        check_key(self.run_key)
        if not 0 <= self.finished <= LATEST:
            raise ValueError("finished is no time in seconds since 1970")


@dataclass(frozen=True)
class Results:
    """results.json."""

    metrics: dict[str, float]
    constants: dict[str, Any]

    def __post_init__(self) -> None:
        check_names(self.metrics)
        if wrong := [name for name, value in self.metrics.items() if not math.isfinite(value)]:
            raise ValueError(f"metrics.{wrong[0]} is not finite")


@dataclass(frozen=True)
class Split:
    """A split, in dataset.json."""

    count: int
    fingerprint: str


@dataclass(frozen=True)
class Description:
    """What is used of dataset.json."""

    classes: tuple[str, ...]
    image_size: int
    channels: int
    splits: dict[str, dict[str, Any]]
    fingerprint: str
    ood: dict[str, str]
    constants: dict[str, Any]

    def __post_init__(self) -> None:
        for name in self.classes:
            check_text("a class name", name)
        check_text("fingerprint", self.fingerprint)
        for name, split in self.splits.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"no name of a split: {name[:100]!r}")
            _part(Split, split, f"splits.{name}")


@dataclass(frozen=True)
class Carried:
    """A stage's journal that came along, checked."""

    key: str
    folder: Path
    events: list[Event]
    finished: float  # seconds since 1970


def check_files(study: Path, project_data: Path) -> None:
    """Make sure that no file of a study's members is a link or a device, and no link leads out of the study.

    A member's `data/prepared` alone may be a link, as `run` makes it: into the study, or to the project's own images.

    Raises:
        UserError: another link, or no regular file.
    """
    top, root = study / RUNS, study.resolve()
    if top.is_symlink():
        raise UserError(f"{top}: a link. {OWN}")
    for path in _below(top):
        if path.is_symlink():
            images = path.resolve()
            if path.relative_to(top).parts[2:] != PREPARED.parts:
                raise UserError(f"{path}: a link. {OWN}")
            if images != project_data and root not in images.parents:
                raise UserError(f"{path}: a link that leads out of the study. {OWN}")
            if images != project_data and any(map(Path.is_symlink, _below(images))):
                raise UserError(f"{images}: there are links in it. {OWN}")


def _below(folder: Path) -> Iterator[Path]:
    """Everything in a folder, without following links. Raises UserError for a device or another special file."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in (*folders, *files)):
            kind = path.lstat().st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
                raise UserError(f"{path}: neither a file nor a folder. Remove it.")
            yield path


def check_member(member: Member) -> dict[str, Carried]:
    """Check a member's settings, the description of its images and the stages that have run; returns their journals.

    Raises:
        UserError: a file does not hold what the stages write; the message names it, and the line of a journal.
    """
    _check_settings(member)
    description = member.folder / PREPARED / "dataset.json"
    _part(Description, read_json(description), str(description))
    return {stage: _check_stage(member, stage) for stage in CARRIED if member.has_run(stage)}


def _check_settings(member: Member) -> None:
    path = member.folder / SETTINGS
    try:
        params = validate_params(read_json(path), path)
        check_text("tracking.experiment", params.tracking.experiment)
    except UserError as error:
        raise UserError(shortened(error)) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {shortened(error)}.") from error
    place = (member.folder.parent.name, member.folder.name)
    if tuple(params.encoders) != place[:1] or place[1] != f"seed-{params.seed}":
        raise UserError(
            f"{path}: of {', '.join(params.encoders)} at seed {params.seed}; its folder says {'/'.join(place)}."
        )


def _check_stage(member: Member, stage: str) -> Carried:
    folder = member.folder / "outputs" / member.model / stage
    path = folder / "record.json"
    record = _read(Record, path)
    if (record.stage, record.variant) != (stage, member.model):
        raise UserError(f"{path}: the record of {record.stage[:100]!r} of {str(record.variant)[:100]!r}.")
    _read(Results, folder / "results.json")
    if stage == "pretrain":
        _check_curves(folder / "curves.csv")
    for archive in folder.glob("*.npz"):
        _check_unzipped(archive)
    journal = member.folder / ".tracking" / "journals" / record.run_key
    return Carried(record.run_key, journal, _check_journal(journal, stage, member), record.finished)


def _check_curves(path: Path) -> None:
    """Numbers against whole steps, empty where a step has none."""
    rows = 0
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                rows += 1
                if not 0 <= int(row["step"]) < 2**63:
                    raise ValueError("a step that is no 64-bit number")
                check_names(row)
                for value in filter(None, row.values()):
                    float(value)
    except (OSError, csv.Error, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path}, line {rows + 1}: no curve of a training ({shortened(error)}).") from error


def _check_unzipped(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: no file of arrays ({shortened(error)}).") from error
    if size > MAX_UNZIPPED:
        raise UserError(f"{path}: holds {size / 2**30:.0f} GiB of arrays, more than any stage writes.")


def _check_journal(folder: Path, stage: str, member: Member) -> list[Event]:
    path = folder / EVENTS
    if not path.is_file():
        raise UserError(f"{path}: not there, but the record of {stage} names it.")
    events = read_events(folder)
    kinds = [event.kind for event in events]
    if kinds[:1] != ["start"] or "start" in kinds[1:] or "finish" in kinds[:-1]:
        raise UserError(f"{path}: a journal begins with `start`, its only one, and nothing follows `finish`.")
    for line, event in enumerate(events, 1):
        try:
            _check_event(folder, stage, member, event)
        except (UserError, ValueError) as error:
            raise UserError(f"{path}, line {line}: {shortened(error)}.") from error
    return events


def _check_event(folder: Path, stage: str, member: Member, event: Event) -> None:
    """Raises UserError or ValueError for what the journal of a stage that trains or evaluates does not hold."""
    if event.kind not in KINDS:
        raise ValueError(f"no event of the stage {stage}: {event.kind[:100]!r}")
    check_event(event.kind, event.fields)
    fields = event.fields
    for name in fields.get("tags", {}):
        if name not in TAGS and not name.startswith(TAG_FAMILIES):
            raise ValueError(f"no tag of the stage {stage}: {name!r}")
    match event.kind:
        case "start":
            expected: dict[str, Any] = {"key": folder.name, "experiment": member.params.tracking.experiment}
            expected |= {"stage": stage, "variant": member.model}
            for name, value in expected.items():
                found = fields[name] if name in fields else fields["tags"].get(name)
                if found != value:
                    raise ValueError(f"{name} is {found!r}, expected {value!r}")
        case "dataset":
            source = PurePosixPath(fields["source"])
            if source.parent != PurePosixPath(PREPARED) or not NAME.fullmatch(source.name):
                raise ValueError(f"the source of a data set is a file of {PREPARED}/, not {fields['source']!r}")
            check_text("profile", json.dumps(fields["profile"]), 2000)
        case "artifact":
            place = journal_file(folder, fields["path"])
            if place.suffix not in SUFFIXES or not NAME.fullmatch(place.name) or not place.is_file():
                raise ValueError(f"no file that the stage {stage} sends: {fields['path']!r}")
        case "nest" if fields["children"]:
            raise ValueError("a study's runs have no runs under them")


def _read(kind: type[T], path: Path) -> T:
    try:
        return read_dataclass(kind, read_json(path), str(path))
    except (UserError, OverflowError, RecursionError) as error:
        raise UserError(shortened(error, 1000)) from error


def _part(kind: type[T], value: Any, where: str) -> T:
    """The keys of a mapping that a dataclass has; others may stand beside them."""
    if isinstance(value, Mapping):
        value = {field.name: value[field.name] for field in fields(kind) if field.name in value}  # type: ignore[arg-type]
    try:
        return read_dataclass(kind, value, where)
    except (UserError, OverflowError, RecursionError) as error:
        raise UserError(shortened(error, 1000)) from error
