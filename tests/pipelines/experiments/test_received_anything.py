"""A study in which anything was changed: taken, or refused in one message, with nothing written or read elsewhere."""

import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import UserError
from pipelines.experiments.importing import read_study
from tests.pipelines.experiments.archives import (
    RECORD,
    Files,
    fetched,
    member,
    tar,
)

NASTY = st.sampled_from(
    [
        *(None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), "", ".", "..", "../../x", "/etc/passwd", "\0"),
        *("\ud800", [], {}, [None], {"": None}, [[[[]]]], "x" * 10_000, "a\nb", "\x1b[31m", "start", "promote"),
    ]
)
PLACES = ["/etc/x", "../x", "runs/../../x", "runs/wide/seed-3", ".", "", "runs", "a\0b", "study.json", "ü", RECORD]
KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE]


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[Files], bytes]:
    """What is done to a valid study: to a file's bytes, to a value in one, to a member, or to the archive's bytes."""
    what = draw(st.sampled_from(["bytes", "value", "value", "value", "member", "archive"]))
    where, cut, at = draw(st.integers(0, 10**6)), draw(st.integers(0, 40)), draw(st.integers(0, 10**6))
    noise, value = draw(st.binary(max_size=40)), draw(NASTY)

    def spoilt(content: bytes) -> bytes:
        start = at % (len(content) + 1)
        return content[:start] + noise + content[start + cut :]

    def mutate(files: Files) -> bytes:
        names = sorted(files)
        name = names[where % len(names)]
        if what == "bytes":
            return tar(files | {name: spoilt(files[name])})
        if what == "archive":  # mostly a header
            content = tar(files)
            start = (at % (len(content) // 512)) * 512 + cut * 4
            return content[:start] + noise + content[start + len(noise) :]
        if what == "member":
            place = PLACES[at % len(PLACES)] if cut % 2 else name
            entry = member(place, KINDS[cut % len(KINDS)] if cut % 3 else tarfile.REGTYPE, PLACES[where % len(PLACES)])
            return tar(files if cut % 4 else {n: c for n, c in files.items() if n != name}, entry)
        name = (found := [n for n in names if n.endswith((".json", ".jsonl"))])[where % len(found)]
        lines = files[name].splitlines() if name.endswith("l") else [files[name]]
        lines[at % len(lines)] = json.dumps(_changed(json.loads(lines[at % len(lines)]), at, value, cut)).encode()
        return tar(files | {name: b"\n".join(lines) + b"\n"})

    return mutate


def _changed(tree: Any, at: int, value: Any, how: int) -> Any:
    """With one value somewhere in it replaced, removed or added."""
    if not isinstance(tree, (dict, list)) or not tree or at % 5 == 4:
        return value
    key: Any = sorted(tree)[at % len(tree)] if isinstance(tree, dict) else at % len(tree)
    if how % 4 == 0 and isinstance(tree, dict):
        return {k: v for k, v in tree.items() if k != key}
    if how % 4 == 1 and isinstance(tree, dict):
        return tree | {f"{key}{how}": value}
    tree = tree.copy()
    tree[key] = _changed(tree[key], at // 7, value, how)
    return tree


class Watch:
    """Files that are opened while it is on: a hook of the interpreter cannot be taken off again."""

    def __init__(self) -> None:
        self.on = False
        self.opened: list[tuple[Path, bool]] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open" and isinstance(arguments[0], (str, bytes)):
            written = bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            self.opened.append((Path(os.fsdecode(arguments[0])).resolve(), written))


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    found = Watch()
    sys.addaudithook(found)
    yield found
    found.on = False


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutate=mutations())
def test_whatever_is_in_an_archive_it_is_taken_or_refused_in_one_message(mutate, valid, project, watch):
    study = fetched(project, mutate(valid))
    watch.opened, watch.on = [], True
    try:
        with suppress(UserError):
            for _, journals in read_study(study, project / "data/prepared"):
                assert all(journal.folder.resolve().is_relative_to(study) for journal in journals.values())
    finally:
        watch.on = False
        shutil.rmtree(study)
    written = {path for path, written in watch.opened if written and not path.is_relative_to(study)}
    temporary = Path(tempfile.gettempdir()).resolve()  # where the parts are put together
    assert {path for path in written if temporary not in (path, path.parent)} == set()
    secret = (Path("/etc/passwd"), project.parent / "secret.json")
    assert not any(path in secret for path, _ in watch.opened)
    assert list(project.iterdir()) == []
    assert sorted(path.name for path in project.parent.iterdir()) == ["project", "secret.json"]
