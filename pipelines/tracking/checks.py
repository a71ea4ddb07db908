"""What an event of a journal may hold, and which files it may name: a journal need not come from this machine."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import make_dataclass
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


def _check_fields(event: Any) -> None:
    """Raises ValueError for a value that MLflow cannot keep; a field of one name holds the same in all events."""
    for name, value in vars(event).items():
        match name:
            case "key" | "model_run_key" | "parent":
                check_key(value)
            case "children":
                for key in value:
                    check_key(key)
            case "params" | "tags":
                check_texts(value, MAX_PARAM if name == "params" else MAX_TAG)
            case "values":
                check_names(value)
            case "step" if abs(value) >= 2**63:
                raise ValueError("step is no 64-bit number")
            case "name" | "experiment" | "digest" | "source" | "context" | "registered_name" | "folder":
                check_text(name, value or "")
                if name == "folder" and value is not None and (posixpath.normpath(value) != value or value[0] in "./"):
                    raise ValueError(f"folder {value!r} is no place among artifacts")


def _kind(title: str, /, **fields: Any) -> type[Any]:
    return make_dataclass(title, fields.items(), frozen=True, namespace={"__post_init__": _check_fields})


Texts = dict[str, str]
KINDS = {
    "start": _kind("Start", key=str, name=str, experiment=str, params=Texts, tags=Texts),
    "metrics": _kind("Metrics", values=dict[str, float], step=int),
    "params": _kind("Params", params=Texts),
    "tags": _kind("Tags", tags=Texts),
    "dataset": _kind("Dataset", name=str, digest=str, source=str, profile=dict[str, Any], context=str | None),
    "artifact": _kind("Artifact", path=str, folder=str | None),
    "model": _kind(
        "Model",
        path=str,
        name=str,
        registered_name=str | None,
        tags=Texts,
        description=str,
        input_example=str | None,
        extra_files=tuple[str, ...],
    ),
    "nest": _kind("Nest", children=tuple[str, ...]),  # runs to show under this one
    "nest_under": _kind("NestUnder", parent=str),
    "version_tags": _kind("VersionTags", registered_name=str, model_run_key=str, tags=Texts),
    "promote": _kind(
        "Promote",
        registered_name=str,
        model_run_key=str,
        score=float,
        score_name=str,
        gate_passed=bool,
        gate=str,
        data_fingerprint=str,
        comparison=dict[str, Any] | None,
    ),
    "finish": _kind("Finish", status=Status),
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
