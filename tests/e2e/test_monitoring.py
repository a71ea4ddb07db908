"""`python -m pipelines flow monitor` on a finished project, with a Prefect server of its own beside it."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory) -> Any:
    """A copy of the finished project, in which the champion may watch."""
    return finished.copy(tmp_path_factory.mktemp("watched") / "project")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of a Prefect server's API."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    environment = {"PATH": str(Path(sys.executable).parent), "HOME": str(home), "PREFECT_HOME": str(home)}
    environment |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        address = f"http://127.0.0.1:{port}/api"
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except OSError:
                assert time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.2)
        yield address
        process.terminate()


@pytest.fixture(scope="module")
def monitor(project, server) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`monitor("key=value", code=0)`"""

    def run(*parameters: str, code: int) -> subprocess.CompletedProcess[str]:
        command = ("pipelines", "flow", "monitor", "incoming=data/incoming", *parameters)
        done: subprocess.CompletedProcess[str] = project.python(*command, code=code, PREFECT_API_URL=server)
        return done

    return run


def put(project, split: str, count: int) -> None:
    folder = project.root / "data" / "incoming"
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(np.load(project.root / f"data/prepared/{split}.npy")[:count]):
        Image.fromarray(image[..., 0]).save(folder / f"{split}-{number:03}.png")


def drift_events(server: str) -> list[dict[str, Any]]:
    query = json.dumps({"filter": {"event": {"name": ["gcrl.drift.detected"]}}}).encode()
    request = urllib.request.Request(f"{server}/events/filter", query, {"content-type": "application/json"})
    found: list[dict[str, Any]] = json.load(urllib.request.urlopen(request, timeout=30))["events"]
    return found


def test_the_champion_watches_the_images_that_come_in(project, server, monitor):
    put(project, "test", 100)
    done = monitor(code=0)
    assert "100 images" in done.stderr
    assert "no drift" in done.stderr
    assert drift_events(server) == []

    put(project, "ood-photo-patches", 40)
    done = monitor(code=1)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: gcrl version ")
    assert ": 40 images, " in message
    assert "; drift of share flagged as OOD: 0.9" in message
    deadline = time.monotonic() + 30
    while not (events := drift_events(server)):
        assert time.monotonic() < deadline, "no event"
        time.sleep(0.2)
    assert [event["resource"]["prefect.resource.id"] for event in events] == ["gcrl.model.gcrl"]
    assert f"error: {events[0]['payload']['message']}" == message

    usual, other = sorted((project.root / "data" / "monitoring").glob("2*/predictions.parquet"))
    assert len(pq.read_table(usual)) == 100
    flagged = pq.read_table(other)["is_ood"].to_pylist()
    assert sum(flagged) > 36
    classes = json.loads((project.root / "data/prepared/dataset.json").read_text())["classes"]
    assert set(pq.read_table(usual)["predicted_class"].to_pylist()) <= set(classes)

    done = monitor(code=0)
    assert "nothing new among 140 files" in done.stderr


def test_the_reference_is_the_exported_models_on_validation(project):
    from components.evaluation.ood.score_table import read_scores
    from components.export.reference import Reference

    prepared = np.load(project.root / "data/prepared/val.npy")
    for variant in ("hybrid", "contrastive"):
        folder = project.root / "outputs" / variant
        reference = Reference.load(folder / "export/reference.npz")
        expected = read_scores(folder / "ood/scores.parquet")["fused"]["val"]
        assert reference.ood_score == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert len(reference.is_ood) == len(prepared)
        assert reference.is_ood.mean() <= float(reference.false_alarm_rate) == 0.05
