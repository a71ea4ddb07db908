"""A server that sends a byte now and then: each read succeeds, and the answer never comes to its end."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from pipelines.tracking import Journal, deliver, limit
from pipelines.tracking import store as stores
from pipelines.tracking.fetch import fetch_model
from pipelines.tracking.limit import Limited, within
from pipelines.tracking.spool import waiting


class Dripping(ThreadingHTTPServer):
    """Answers the first `whole` requests; of every later answer it sends a byte every tenth of a second, until told."""

    daemon_threads = True

    def __init__(self, whole: int, part: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.whole, self.part = whole, part
        self.stop = threading.Event()
        self.ended = threading.Event()  # an answer came to its end, or whoever asked hung up

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Dripping

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"experiments": [{"experiment_id": "0", "name": "Default"}]}).encode()
        self.server.whole -= 1
        if self.server.whole >= 0:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X: " if self.server.part == "headers" else b"\r\n{"))
        while not self.server.stop.wait(0.1):
            self.wfile.write(b" ")
        self.server.ended.set()

    do_POST = do_GET  # noqa: N815 - the standard library's name

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(params=[(0, "headers"), (0, "body"), (1, "headers"), (1, "body")], ids=lambda p: f"{p[1]} after {p[0]}")
def dripping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dripping]:
    monkeypatch.setattr(stores, "REACH_SECONDS", 1)
    monkeypatch.setattr(limit, "LEEWAY", 0.5)
    server = Dripping(*request.param)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


@pytest.mark.timeout(120)  # it would drip for ever
def test_a_delivery_ends_and_loses_nothing(
    dripping: Dripping, root: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal.start("report", "hybrid", root=root) as journal:
        journal.metrics({"accuracy": 0.9})
    delivery = deliver(dripping.uri, root=root, timeout=1)
    assert not dripping.ended.is_set()
    assert delivery.pending == waiting(root) == [journal.key]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{dripping.uri} does not answer" in line
    assert list(deliver(store, root=root).sent) == [journal.key]


@pytest.mark.timeout(120)
def test_asking_for_a_model_ends(
    dripping: Dripping, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dripping.uri)
    monkeypatch.setattr(stores, "USER_TIMEOUT", 0.0)
    connect = stores.connect
    monkeypatch.setattr(stores, "connect", lambda uri, root, timeout: connect(uri, root, 1))
    with pytest.raises(UserError, match="does not answer"):
        fetch_model("gcrl", "champion", tmp_path, root)
    assert not dripping.ended.is_set()


def test_a_call_is_as_it_was() -> None:
    class Client:
        name = "a client"

        def add(self, one: int, two: int = 2) -> int:
            return one + two

        def fail(self) -> None:
            raise TimeoutError("of its own")

    limited = Limited(Client(), 10)
    assert (limited.name, limited.add(1), limited.add(1, two=3)) == ("a client", 3, 4)
    with pytest.raises(TimeoutError, match="of its own"):
        limited.fail()


def test_an_upload_has_the_time_that_its_bytes_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[float] = []
    monkeypatch.setattr(limit, "within", lambda seconds, call: allowed.append(seconds))
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "model.onnx").write_bytes(bytes(5 * limit.SLOWEST_UPLOAD))
    client = Limited(type("Client", (), {"log_artifacts": None, "set_tag": None})(), 10)
    client._client.log_artifacts = client._client.set_tag = lambda *_: None
    client.log_artifacts("run", str(tmp_path), "folder")
    client.set_tag("run", str(tmp_path))
    assert allowed[0] - allowed[1] == pytest.approx(5)


def test_what_takes_too_long_says_so() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match="timed out: no whole answer within 0 seconds"):
        within(0.01, never.wait)
    never.set()
