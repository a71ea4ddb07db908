"""Servers that are not there, refuse, hang, die in the middle; and deliveries cut off between any two calls."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.__main__ import main
from pipelines.tracking import Delivery, Journal, deliver, promotion_result
from pipelines.tracking import store as stores
from pipelines.tracking.background import upload_in_background
from pipelines.tracking.spool import waiting

Send = Callable[..., Delivery]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """A web server that answers every request with one status (or, for 0, not at all within the test)."""
    status: int = request.param
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status == 0:
                stop.wait(30)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>not for you</html>")

        do_POST = do_GET  # noqa: N815 - the standard library's name

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://someone:secret@127.0.0.1:{server.server_port}"
    stop.set()
    server.shutdown()


def finished(root: Path) -> str:
    with Journal.start("probe", "hybrid", root=root) as journal:
        journal.metrics({"accuracy": 0.9})
    return journal.key


@pytest.mark.parametrize(
    ("answering", "words"),
    [
        (401, "refused the credentials: set MLFLOW_TRACKING_USERNAME"),
        (403, "refused access"),
        (404, "does not answer as an MLflow server: check MLFLOW_TRACKING_URI"),
        (200, "does not answer as an MLflow server: check MLFLOW_TRACKING_URI"),
        (500, "answers with error 500"),
        (0, "does not answer"),
    ],
    indirect=["answering"],
)
def test_refusal_is_one_clear_line(
    answering: str, words: str, root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "REACH_SECONDS", 1)
    key = finished(root)
    began = time.monotonic()
    delivery = deliver(answering, root=root)
    assert time.monotonic() - began < 5
    assert delivery.pending == [key]
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert "secret" not in line
    assert str(root / "journals") in line
    assert "python -m pipelines tracking sync" in line


def test_no_server_costs_the_stage_little_and_sync_sends_it_later(
    closed_port: str, root: Path, store: str, client: MlflowClient, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [finished(root) for _ in range(3)]
    began = time.monotonic()
    delivery = deliver(closed_port, root=root)
    assert time.monotonic() - began < 3
    assert delivery.pending == keys
    warning = capsys.readouterr().err
    assert "cannot be reached" in warning
    assert "3 runs wait" in warning

    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_port)
    assert main(["tracking", "sync"]) == 1
    assert capsys.readouterr().out.count("pending  ") == 3
    assert main(["tracking", "status"]) == 0
    assert capsys.readouterr().out.count("waiting  ") == 3

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MLFLOW_TRACKING_URI": store}
    command = [sys.executable, "-m", "pipelines", "tracking", "sync"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root.parent)
    assert (done.returncode, done.stdout.count("sent     "), done.stderr) == (0, 3, "")
    assert all(len(stores.find_runs(client, key)) == 1 for key in keys)
    assert waiting(root) == []


def test_server_killed_in_the_middle_loses_and_doubles_nothing(server: Any, root: Path, capsys: Capture) -> None:
    client = MlflowClient(server.uri)
    steps = range(6000)
    with Journal.start("pretrain", root=root) as long:
        for step in steps:
            long.metrics({"loss": step / 7}, step)
    live = Journal.start("pretrain", root=root)

    def losses(journal: Journal) -> list[tuple[int, float]]:
        runs = stores.find_runs(client, journal.key)
        return [(m.step, m.value) for m in client.get_metric_history(runs[0].info.run_id, "loss")] if runs else []

    def kill_the_server_in_the_middle() -> None:
        until((long.folder / "cursor.json").exists)
        time.sleep(0.05)
        server.kill()

    with upload_in_background(live, every=0.1, tracking_uri=server.uri) as thread:
        live.metrics({"loss": 0}, step=0)
        until(lambda: losses(live) == [(0, 0)])

        killer = threading.Thread(target=kill_the_server_in_the_middle)
        killer.start()
        delivery = deliver(server.uri, root=root)
        killer.join()
        assert delivery.pending == [long.key]
        assert "cannot be reached" in str(delivery.error)

        began = time.monotonic()
        for step in range(1, 4):
            live.metrics({"loss": step}, step)
        assert time.monotonic() - began < 0.5
        until(lambda: "The stage goes on." in capsys.readouterr().err)
        server.start()
        until(lambda: losses(live) == [(step, step) for step in range(4)])
    assert not thread.is_alive()
    live.finish()

    assert list(deliver(server.uri, root=root).sent) == [long.key, live.key]
    assert losses(long) == [(step, step / 7) for step in steps]
    assert losses(live) == [(step, step) for step in range(4)]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class CutError(Exception):
    """The connection breaks."""


class CutOff:
    """A real client whose n-th call and all later ones break; the server has executed the n-th.

    So the store is left as it would be by an uploader or a connection that dies anywhere between two calls.
    """

    def __init__(self, client: MlflowClient, calls: int) -> None:
        self._client, self._calls = client, calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._calls -= 1
            result = method(*arguments, **options) if self._calls >= 0 else None
            if self._calls <= 0:
                raise CutError(name)
            return result

        return call


@pytest.mark.chaos
def test_delivery_cut_off_after_any_call_is_safe(
    root: Path,
    send: Send,
    client: MlflowClient,
    onnx_file: Path,
    another_model: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = stores.connect
    calls, cut = 0, True
    while cut:
        calls += 1
        child = client.create_run("0", tags={stores.RUN_KEY: f"child-{calls}"})
        with Journal.start("report", params={"steps": 1}, root=root) as journal:
            for step in range(3):
                journal.metrics({"loss": step}, step)
            journal.dataset("digits", "abc", "data/prepared")
            journal.artifact(onnx_file.with_name("example.npy"))
            journal.model(another_model(), "encoder", "cut")
            journal.nest([f"child-{calls}"])
            journal.promote("cut", journal.key, calls, "auroc", True, "always", "abc")
        monkeypatch.setattr(stores, "connect", lambda *a: CutOff(connect(*a), calls))  # noqa: B023
        cut = send(quiet=True).error is not None
        monkeypatch.setattr(stores, "connect", connect)
        if cut:
            assert list(send().sent) == [journal.key]

        (found,) = stores.find_runs(client, journal.key)
        run = client.get_run(found.info.run_id)
        assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [0, 1, 2]
        assert run.info.status == "FINISHED"
        assert len(run.inputs.dataset_inputs) == 1
        assert len(run.outputs.model_outputs) == 1
        assert len(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")) == 1
        assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == run.info.run_id
        (version,) = client.search_model_versions(f"name = 'cut' AND run_id = '{run.info.run_id}'")
        assert int(version.version) == calls  # one version a journal
        assert int(client.get_model_version_by_alias("cut", "champion").version) == calls
        result = promotion_result(journal.key, root)
        assert result is not None
        assert result["moved"]
        assert result["previous_champion"] == (str(calls - 1) if calls > 1 else None)
    assert calls > 20
