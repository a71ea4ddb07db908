import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines import command_start

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _forget():
    command_start.started.cache_clear()
    yield
    command_start.started.cache_clear()


def test_the_environment_has_the_first_word(monkeypatch):
    monkeypatch.setenv(command_start.VARIABLE, "123.5")
    assert command_start.started() == 123.5


def test_a_stage_that_runs_alone_began_when_its_process_did():
    code = (
        "import psutil; from pipelines.command_start import started; print(started() - psutil.Process().create_time())"
    )
    environment = {k: v for k, v in os.environ.items() if k != command_start.VARIABLE} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert float(done.stdout) == 0


def test_a_stage_under_dvc_began_when_dvc_did(tmp_path):
    dvc = tmp_path / "dvc"
    dvc.write_text(
        f'sleep 0.3\n"{sys.executable}" -c "from pipelines.command_start import started; print(started())"\ntrue\n'
    )
    environment = {k: v for k, v in os.environ.items() if k != command_start.VARIABLE} | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(["sh", str(dvc)], stdout=subprocess.PIPE, text=True, env=environment) as process:
        began = psutil.Process(process.pid).create_time()
        told, _ = process.communicate()
    assert float(told) == began
    assert time.time() - began > 0.3
