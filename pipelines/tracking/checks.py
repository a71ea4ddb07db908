"""What an event of a journal may hold, and which files it may name: a journal need not come from this machine."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.dataclass_reader import read_dataclass
from components.errors import UserError

Status = Literal["FINISHED", "FAILED", "KILLED"]

EVENTS, ARTIFACTS = "events.jsonl", "artifacts"  # of a journal
MAX_KEY, MAX_PARAM, MAX_TAG = 250, 6000, 8000  # characters that MLflow accepts
MAX_TEXT = 500  # characters of a name that MLflow accepts
MAX_TIME = 253_402_300_799_000  # milliseconds since 1970: the year 9999
RUN_KEY = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,200}")  # a folder's name, too, and part of a search
NAME = re.compile(rf"[\w/.\- :]{{1,{MAX_KEY}}}")
UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # databases refuse them


def check_key(key: str) -> None:
    """Raises ValueError unless a run key is one: it names folders and stands in searches."""
    if not RUN_KEY.fullmatch(key):
        raise ValueError(f"no run key: {key[:100]!r} (expected letters, digits, - _ and ., the first no dot)")


def check_text(what: str, text: str, limit: int = MAX_TEXT) -> None:
    """Raises ValueError for a text that MLflow cannot keep."""
    if len(text) > limit:
        raise ValueError(f"{what} has {len(text)} characters, at most {limit} are kept")
    if found := UNSTORABLE.search(text):
        raise ValueError(f"{what} holds {found[0]!r}, which databases refuse")


def check_names(names: Mapping[str, Any]) -> None:
    """Raises ValueError for a name of a metric, parameter or tag that MLflow refuses."""
    for name in names:
        if not NAME.fullmatch(name) or posixpath.normpath(name) != name or name.startswith((".", "/")):
            raise ValueError(f"no name of a metric, parameter or tag: {name[:100]!r}")


def check_texts(texts: Mapping[str, str], limit: int) -> None:
    """Raises ValueError for parameters or tags that MLflow cannot keep."""
    check_names(texts)
    for name, text in texts.items():
        check_text(name, text, limit)


@dataclass(frozen=True)
class Start:
    """The first event."""

    key: str
    name: str
    experiment: str
    params: dict[str, str]
    tags: dict[str, str]

    def __post_init__(self) -> None:
        check_key(self.key)
        check_text("name", self.name)
        check_text("experiment", self.experiment)
        check_texts(self.params, MAX_PARAM)
        check_texts(self.tags, MAX_TAG)


@dataclass(frozen=True)
class Metrics:
    """Numbers at a step."""

    values: dict[str, float]
    step: int

    def __post_init__(self) -> None:
        check_names(self.values)
        if abs(self.step) >= 2**63:
            raise ValueError("step is no 64-bit number")


@dataclass(frozen=True)
class Parameters:
    """Settings."""

    params: dict[str, str]

    def __post_init__(self) -> None:
        check_texts(self.params, MAX_PARAM)


@dataclass(frozen=True)
class Tags:
    """Texts."""

    tags: dict[str, str]

    def __post_init__(self) -> None:
        check_texts(self.tags, MAX_TAG)


@dataclass(frozen=True)
class Dataset:
    """A data set that the run used."""

    name: str
    digest: str
    source: str
    profile: dict[str, Any]
    context: str | None

    def __post_init__(self) -> None:
        for what in ("name", "digest", "source", "context"):
            check_text(what, getattr(self, what) or "")


@dataclass(frozen=True)
class Artifact:
    """A file or folder."""

    path: str
    folder: str | None

    def __post_init__(self) -> None:
        check_text("folder", self.folder or "")
        if self.folder is not None and (posixpath.normpath(self.folder) != self.folder or self.folder[0] in "./"):
            raise ValueError(f"folder {self.folder!r} is no place among artifacts")


@dataclass(frozen=True)
class Model:
    """An ONNX model."""

    path: str
    name: str
    registered_name: str | None
    tags: dict[str, str]
    description: str
    input_example: str | None
    extra_files: tuple[str, ...]

    def __post_init__(self) -> None:
        check_text("name", self.name)
        check_text("registered_name", self.registered_name or "")
        check_texts(self.tags, MAX_TAG)


@dataclass(frozen=True)
class Nest:
    """Runs to show under this one."""

    children: tuple[str, ...]

    def __post_init__(self) -> None:
        for key in self.children:
            check_key(key)


@dataclass(frozen=True)
class NestUnder:
    """The run to show this one under."""

    parent: str

    def __post_init__(self) -> None:
        check_key(self.parent)


@dataclass(frozen=True)
class VersionTags:
    """Tags of a registered version."""

    registered_name: str
    model_run_key: str
    tags: dict[str, str]

    def __post_init__(self) -> None:
        check_key(self.model_run_key)
        check_texts(self.tags, MAX_TAG)


@dataclass(frozen=True)
class Promote:
    """A proposal for the champion."""

    registered_name: str
    model_run_key: str
    score: float
    score_name: str
    gate_passed: bool
    gate: str
    data_fingerprint: str
    rematch: dict[str, Any] | None

    def __post_init__(self) -> None:
        check_key(self.model_run_key)


@dataclass(frozen=True)
class Finish:
    """The last event."""

    status: Status


KINDS: dict[str, type[Any]] = {
    "start": Start,
    "metrics": Metrics,
    "params": Parameters,
    "tags": Tags,
    "dataset": Dataset,
    "artifact": Artifact,
    "model": Model,
    "nest": Nest,
    "nest_under": NestUnder,
    "version_tags": VersionTags,
    "promote": Promote,
    "finish": Finish,
}


def check_event(kind: str, fields: Mapping[str, Any]) -> None:
    """Raises UserError where an event of a known kind lacks a field, has an unknown one, or one of another type."""
    if kind not in KINDS:
        return
    try:
        read_dataclass(KINDS[kind], fields, kind, finite=False)  # a loss may have been nan
    except (UserError, OverflowError, RecursionError) as error:
        raise UserError(shortened(error)) from error


def journal_file(folder: Path, path: str) -> Path:
    """The file or folder that an event names, which lies among the journal's artifacts, with all that is in it.

    Raises:
        UserError: it, or a link in it, leads elsewhere, or it is no regular file.
    """
    root = folder.resolve() / ARTIFACTS
    place = folder / path
    try:
        inside = all(_is_file_below(root, entry) for entry in [place, *place.rglob("*")])
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, a ring of links
        inside = False
    if not inside:
        raise UserError(
            f"{folder / EVENTS}: {path[:200]!r} is no file among the journal's own ({ARTIFACTS}/), or a link in it "
            "leads elsewhere"
        )
    return place


def _is_file_below(root: Path, entry: Path) -> bool:
    place = entry.resolve()
    return root in place.parents and (place.is_file() or place.is_dir() or not place.exists())


def shortened(error: object, limit: int = 400) -> str:
    """A message as one printable line, whatever it quotes."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
