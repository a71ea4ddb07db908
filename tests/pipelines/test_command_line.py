"""`python -m pipelines`: which commands there are, how each ends, and that its help is there at once."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import ConfigError, KilledError, UserError
from pipelines import repro
from pipelines.__main__ import main

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "prefect", "mlflow", "dvc", "numpy", "pandas", "great_expectations", "onnxruntime"}
COMMANDS = [
    *("preset", "repro", "predict", "deploy", "worker", "undeploy", "derive"),
    *(f"flow {name}" for name in ("reproduce", "sweep", "retrain", "monitor")),
    *(f"tracking {name}" for name in ("sync", "status", "ui", "links", "promote", "rollback")),
]


@pytest.mark.parametrize("arguments", ["", "flow", "tracking"])
def test_help_lists_every_command_without_importing_what_is_heavy(arguments):
    code = (
        "import sys; from pipelines.__main__ import main\n"
        f"main([*{arguments.split()}, '--help']); print(sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *page, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    listed = [line.split()[0] for line in page[page.index("Commands:") + 1 :]]
    prefix = f"{arguments} " if arguments else ""
    expected = [] if arguments else ["experiments"]
    expected += [command.removeprefix(prefix).split()[0] for command in COMMANDS if command.startswith(prefix)]
    assert set(listed) == set(expected)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_and_what_each_of_its_words_is(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    usage, empty, sentence, *rest = capsys.readouterr().out.splitlines()
    assert usage.startswith(f"Usage: gcrl {command} ")
    assert empty == ""
    assert len(sentence.split()) > 3
    for line in rest:
        if re.match(r"  \S+ .*<|  --", line):  # an argument or option, its type, and what it is
            assert re.search(r"\S  +\S", line), line


@pytest.mark.parametrize(
    ("ended", "code", "told"),
    [
        (UserError("a.yaml: not there."), 1, "error: a.yaml: not there."),
        (ConfigError("a.yaml: no mapping."), 2, "error: a.yaml: no mapping."),
        (KilledError("it was killed."), 1, "killed: it was killed."),
        (
            PermissionError(13, "Permission denied", "a.yaml"),
            1,
            "error: a.yaml: Permission denied. It must be",
        ),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
    ],
)
def test_every_command_ends_by_one_rule(monkeypatch, capsys, ended, code, told):
    def fails(*_):
        raise ended

    monkeypatch.setattr(repro, "repro", fails)
    assert main(["repro"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)


def test_an_exit_code_of_a_command_is_the_processes(monkeypatch):
    monkeypatch.setattr(repro, "repro", lambda *_: 130)
    assert main(["repro"]) == 130


@pytest.mark.parametrize("arguments", [["preset"], ["preset", "a", "b"], ["repr"], ["repro", "--forse"], ["tracking"]])
def test_a_mistake_in_the_command_is_exit_code_2(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("Usage: gcrl ") or arguments == ["tracking"]


def test_options_that_the_worker_does_not_know_are_prefects(monkeypatch):
    from pipelines.flows import deploy

    given = []
    monkeypatch.setattr(deploy, "worker", lambda pool, options: given.append((pool, options)))
    assert main(["worker", "--limit", "3", "--pool", "mine", "--with-healthcheck"]) == 0
    assert given == [("mine", ["--limit", "3", "--with-healthcheck"])]


def test_a_study_reads_its_own_words(capsys):
    assert main(["experiments", "run", "--help"]) == 0
    assert "--models MODELS [MODELS ...]" in capsys.readouterr().out
    assert main(["experiments", "run", "nowhere", "--seeds", "1", "2", "--set", "a=1", "b=2"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere: no study.json there.")
