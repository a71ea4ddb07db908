"""Packed studies as somebody might make them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from pipelines.experiments.importing import import_study

MEMBER = "runs/wide/seed-3"
RECORD = f"{MEMBER}/outputs/wide/probe/record.json"
Files = dict[str, bytes]


def tar(files: Files, *more: tarfile.TarInfo) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in more:
            archive.addfile(entry, io.BytesIO(b"\0" * entry.size))
    return whole.getvalue()


def fetched(project: Path, content: bytes) -> Path:
    folder = project.parent / "fetched"
    folder.mkdir()
    (folder / "study.tar.000").write_bytes(content)
    return folder


def refused(project: Path, study: Path) -> str:
    """The one message with which a study is refused; checks that the project is as it was."""
    with pytest.raises(UserError) as error:
        import_study(study)
    assert list(project.iterdir()) == []
    assert "secret" not in str(error.value).replace("secret.json", "")
    assert "\n" not in str(error.value)
    return str(error.value)


def journal_of(files: Files, stage: str) -> str:
    key = json.loads(files[f"{MEMBER}/outputs/wide/{stage}/record.json"])["run_key"]
    return f"{MEMBER}/.tracking/journals/{key}"


def with_event(files: Files, stage: str, **event: Any) -> Files:
    """With an event as the second line of a stage's journal."""
    name = f"{journal_of(files, stage)}/events.jsonl"
    first, *others = files[name].splitlines(keepends=True)
    return files | {name: b"".join([first, json.dumps({"time": 1, **event}).encode() + b"\n", *others])}


def edited(files: Files, name: str, **keys: Any) -> Files:
    return files | {name: json.dumps(json.loads(files[name]) | keys).encode()}


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "", size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, to, size
    return entry
