import subprocess

import pytest

from components.errors import UserError
from pipelines.__main__ import main
from pipelines.flows.deploy import check_committed


@pytest.fixture
def root(committed, commit):
    root = committed({"one": {"cmd": "echo 1 > one.out"}})
    for name in ("dvc.lock", "prefect.yaml"):
        (root / name).touch()
    commit(root)
    return root


@pytest.mark.parametrize("name", ["params.yaml", "presets/own-images.yaml"])
def test_settings_that_are_not_committed_are_refused(root, commit, name):
    with (root / name).open("a") as file:
        file.write("# a thought of mine\n")
    with pytest.raises(UserError) as told:
        check_committed(root)
    assert str(told.value).startswith(f"{name}: changed since the last commit")
    # what the message proposes helps
    author = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", "mine"]
    _, _, files = str(told.value).partition("git commit ")
    subprocess.run(["git", *author, *files.split()], cwd=root, check=True)
    check_committed(root)


def test_other_changes_are_told(root, capsys):
    check_committed(root)
    for name in ("dvc.lock", "prefect.yaml"):
        (root / name).write_text("# mine\n")
    check_committed(root)
    assert capsys.readouterr().err == ""
    (root / "dvc.yaml").write_text("stages: {}\n")
    check_committed(root)
    told = capsys.readouterr().err
    assert told == "warning: scheduled runs take the last commit, without your changes in dvc.yaml\n"


@pytest.mark.parametrize("password", ["se/cretive", "se#cretive", "[secretive"])
def test_a_servers_address_that_cannot_be_read_is_a_message_without_its_password(password, monkeypatch, capsys):
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:{password}@host:4200/api")
    assert main(["worker"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: PREFECT_API_URL: http://host:4200/api cannot be read as an address.")
    assert "cretive" not in told
