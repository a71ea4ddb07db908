"""No part of an address's password is printed or stored, however it is written there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tracking import Journal, deliver
from pipelines.tracking.secrets import fingerprint, is_readable, mask, told, without_password
from pipelines.tracking.spool import read_events
from pipelines.tracking.store import explain

# A mark in each password tells whether any of it was left: a character or two may stand in any address.
MARK = "Zq7Xw"
PASSWORDS = st.tuples(st.text(max_size=8), st.text(max_size=8)).map(lambda ends: f"{ends[0]}{MARK}{ends[1]}")
AROUND = st.tuples(st.sampled_from("/#?@:;&=[]% \\'\"\n"), st.text(max_size=4)).map("".join)
SCHEMES = st.sampled_from(["http://", "https://", "postgresql+psycopg2://", "unheard-of://", "databricks:", ""])
FORMS: list[Callable[[str, str], str]] = [
    lambda scheme, password: f"{scheme}someone:{password}@host:5000/place",
    lambda scheme, password: f"{scheme}{password}@host/place?option=1",
    lambda scheme, password: f"{scheme}host:5000/place?password={password}",
    lambda scheme, password: f"{scheme}someone@host/?x=1&password={password}",
    lambda scheme, password: f"{scheme}host/#token={password}",
]


def leaks(text: str) -> bool:
    return MARK.casefold() in text.casefold()


@given(SCHEMES, PASSWORDS, AROUND, st.sampled_from(FORMS))
def test_no_password_of_any_characters_is_told(
    scheme: str, password: str, around: str, form: Callable[[str, str], str]
) -> None:
    for secret in (password, f"{around}{password}", f"{password}{around}", f"{password[:3]}{around}{password}"):
        uri = form(scheme, secret)
        shown = without_password(uri)
        assert not leaks(shown), uri
        texts = [uri, repr(uri), ascii(uri), quote(uri), uri.lower(), f"port {secret!r} is no number", f"no {secret}"]
        for text in texts:
            assert not leaks(told(ValueError(text), uri))
            assert not leaks(explain(ValueError(text), uri))


@given(SCHEMES.filter(lambda scheme: scheme.endswith("://")), PASSWORDS)
def test_the_host_is_still_told(scheme: str, password: str) -> None:
    if "=" not in password:
        assert without_password(f"{scheme}someone:{password}@host:5000/place") == f"{scheme}host:5000/place"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("file://me:secret@host/x", "file://host/x"),
        ("http://host/?password=a@b", "http://***"),
        ("me:secret@host:5000", "host:5000"),
        ("databricks", "databricks"),
    ],
)
def test_what_is_shown(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_an_error_that_tells_no_secret_keeps_its_text() -> None:
    error = RuntimeError('FATAL:  database "mlflow"\n does not exist')
    assert told(error, "postgresql://me:correct@host/mlflow") == 'RuntimeError: FATAL: database "mlflow" does not exist'


def test_addresses_in_a_text() -> None:
    text = "fetching https://me:se/cr#et@host/a.zip failed, see http://host/b"
    assert mask(text) == "fetching https://host/a.zip failed, see http://host/b"


def test_a_password_alone_changes_the_fingerprint() -> None:
    uris = [f"http://me:{password}@{host}" for password in ("one", "two") for host in ("a", "b")]
    assert len({fingerprint(uri) for uri in uris}) == len(uris)


@pytest.mark.parametrize(
    "password", ["se/cretive", "se#cretive", "se?cretive", "[secretive", "secretive]", "se@cretive"]
)
@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2", "foo"])
def test_a_password_that_nobody_encoded_is_one_line_that_does_not_tell_it(
    scheme: str, password: str, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the errors of MLflow, requests and SQLAlchemy as they are."""
    with Journal.start("probe", root=root) as journal:
        pass
    uri = f"{scheme}://someone:{password}@127.0.0.1:9/mlflow"
    assert deliver(uri, root=root).pending == [journal.key]
    told = capfd.readouterr()
    assert "cretive" not in told.out + told.err
    assert len(told.err.splitlines()) == 1
    assert f"{scheme}://127.0.0.1:9/mlflow" in told.err
    if not is_readable(uri):
        assert "cannot be read as an address" in told.err


def test_an_address_that_cannot_be_parsed_is_a_message(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MLFLOW_TRACKING_URI": "http://me:[pw@host"}
    with Journal.start("probe", root=root):
        pass
    command = [sys.executable, "-m", "pipelines", "tracking", "sync"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root.parent)
    assert done.returncode == 1
    assert "cannot be read as an address" in done.stderr
    assert "Traceback" not in done.stderr
    assert "[pw" not in done.stdout + done.stderr


def test_the_cursor_tells_no_password(journal: Journal, root: Path, store: str) -> None:
    deliver(f"{store}?timeout=5", only=[journal.key], root=root)
    first = (journal.folder / "cursor.json").read_text()
    deliver(f"{store}?timeout=6", only=[journal.key], root=root)
    second = (journal.folder / "cursor.json").read_text()
    assert "timeout" not in first + second
    assert json.loads(first)["uri"] != json.loads(second)["uri"], "as for a password alone"
    assert json.loads(first)["run_id"] == json.loads(second)["run_id"]


def test_the_tag_of_an_error_tells_no_password(root: Path) -> None:
    def stage() -> None:
        with Journal.start("prepare", root=root) as journal:
            keys.append(journal.key)
            raise OSError("https://me:secretive@host/images.zip does not answer")

    keys: list[str] = []
    with pytest.raises(OSError, match="does not answer"):
        stage()
    events = read_events(root / "journals" / keys[0])
    assert events[-2].fields["tags"] == {"error": "OSError: https://host/images.zip does not answer"}
