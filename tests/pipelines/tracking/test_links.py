import json
import socket
import urllib.request
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.tracking import Journal, deliver
from pipelines.tracking.spool import delivering
from pipelines.tracking.store import run_links

ROOT = Path(__file__).parents[3]


def test_links_lead_to_the_runs_that_the_server_has(server, root):
    with Journal.start("report", "hybrid", experiment="linked", root=root) as journal:
        pass
    run_id = deliver(server.uri, root=root).sent[journal.key]
    with_password = server.uri.replace("http://", "http://someone:secret@")
    links = run_links([journal.key, "20260101T000000.000-unknown-00000000"], with_password, root)
    assert set(links) == {journal.key}
    page, _, place = links[journal.key].partition("/#/experiments/")
    assert page == server.uri
    experiment, _, run = place.partition("/runs/")
    assert run == run_id
    with urllib.request.urlopen(f"{server.uri}/api/2.0/mlflow/experiments/get?experiment_id={experiment}") as answer:
        assert json.load(answer)["experiment"]["name"] == "linked"


@pytest.mark.parametrize("uri", ["", "sqlite:///nowhere/mlflow.db"])
def test_a_store_without_a_server_has_no_addresses(root, uri):
    assert run_links(["some-key"], uri, root) == {}


def test_the_ui_starts_though_a_journal_is_pending(root, store, monkeypatch, capsys):
    """One that another process is just delivering."""
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    (root.parent / "params.yaml").write_bytes((ROOT / "presets" / "digits-cpu.yaml").read_bytes())
    with Journal.start("report", "hybrid", root=root) as journal:
        pass
    with delivering(journal.folder, 0) as mine:
        assert mine
        assert main(["tracking", "ui", str(free_port())]) == 0
    told = capsys.readouterr().out
    assert f"pending  {journal.key}" in told
    assert "http://127.0.0.1:" in told


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_that_is_taken_is_told_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["tracking", "ui", str(port)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"error: PORT: port {port} cannot be had")
    assert told.err.endswith(f"Take another: PORT={port + 1} make ui.\n")
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []
