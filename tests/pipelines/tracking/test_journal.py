"""The write side: what a stage leaves on disk, whatever happens to it."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from components.errors import UserError
from pipelines.tracking import Journal
from pipelines.tracking.provenance import git_commit
from pipelines.tracking.spool import is_written, read_events, waiting


def test_import_is_light() -> None:
    code = "import sys, pipelines.tracking; print({'mlflow', 'torch', 'numpy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_events_in_order_with_their_values(journal: Journal) -> None:
    journal.metrics({"loss/nll": np.float32(0.5), "acc@1": float("nan")}, step=3)
    journal.params({"training": {"steps": 5, "schedule": {"warmup": 2}}, "terms": ("a", "b")})
    journal.tags({"note": "ü" * 9000})
    start, metrics, params, tags = read_events(journal.folder)
    assert start.fields["params"] == {"steps": "10"}
    assert start.fields["tags"]["stage"] == "pretrain"
    assert start.fields["tags"]["variant"] == "hybrid"
    assert metrics.fields["step"] == 3
    assert metrics.fields["values"]["loss/nll"] == 0.5
    assert np.isnan(metrics.fields["values"]["acc_1"])
    assert params.fields["params"] == {"training.steps": "5", "training.schedule.warmup": "2", "terms": "('a', 'b')"}
    assert tags.fields["tags"] == {"note": "ü" * 8000}


def test_keys_sort_by_time(root: Path) -> None:
    keys = []
    for stage in ("z", "a", "m"):
        keys.append(Journal.start(stage, root=root).key)
        time.sleep(0.002)
    assert waiting(root) == keys


def test_a_flow_names_the_place_and_gives_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_TRACKING", str(tmp_path / "project" / ".tracking"))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "copy"))
    monkeypatch.setenv("PIPELINE_TAGS", json.dumps({"sweep": "rates", "kind": "flow's"}))
    journal = Journal.start("report", tags={"kind": "model"})
    assert journal.folder.parent == tmp_path / "project" / ".tracking" / "journals"
    tags = read_events(journal.folder)[0].fields["tags"]
    assert (tags["sweep"], tags["kind"], tags["stage"]) == ("rates", "model", "report")


def test_artifacts_are_copies(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.html").write_text("page")
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"one")
    journal.artifact(figure, "figures")
    figure.write_bytes(b"two")
    journal.artifact(figure, "figures")
    journal.artifact(tmp_path / "docs")
    one, two, docs = (journal.folder / event.fields["path"] for event in read_events(journal.folder)[1:])
    assert (one.read_bytes(), two.read_bytes()) == (b"one", b"two")
    assert (docs / "index.html").read_text() == "page"


def test_threads_do_not_mix_lines(journal: Journal) -> None:
    def write(thread: int) -> None:
        for step in range(200):
            journal.metrics({f"metric{thread}": step}, step=step)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = read_events(journal.folder)[1:]
    for thread in range(4):
        steps = [e.fields["step"] for e in events if f"metric{thread}" in e.fields["values"]]
        assert steps == list(range(200))


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (SystemExit(0), "FINISHED"), (ValueError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_status_follows_the_exception(root: Path, error: BaseException | None, status: str) -> None:
    def stage() -> Path:
        with Journal.start("probe", root=root) as journal:
            folders.append(journal.folder)
            if error is not None:
                raise error
        return journal.folder

    folders: list[Path] = []
    if error is None:
        stage()
    else:
        with pytest.raises(type(error)):
            stage()
    events = read_events(folders[0])
    assert events[-1].fields["status"] == status
    if status == "FAILED":
        assert events[-2].fields["tags"] == {"error": "ValueError: bad"}


def test_torn_last_line_is_left_out(journal: Journal) -> None:
    journal.metrics({"loss": 1})
    whole = read_events(journal.folder)
    with (journal.folder / "events.jsonl").open("a") as file:
        file.write('{"event":"metrics","time":1,"val')
    assert read_events(journal.folder) == whole


def test_writer_is_known_dead_after_sigkill_and_alive_before(root: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipelines.tracking import Journal;"
        "print(Journal.start('pretrain', root=Path(sys.argv[1])).key, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    folder = root / "journals" / process.stdout.readline().strip()
    assert is_written(folder)
    process.kill()
    process.wait()
    assert not is_written(folder)


def test_full_disk_is_one_message_and_the_journal_stays_whole(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the limit would cut short those files too
    journal.metrics({"loss": 1})
    whole = (journal.folder / "events.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))
    try:
        with pytest.raises(UserError, match=r"events\.jsonl: could not be written"):
            journal.metrics({"loss": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (journal.folder / "events.jsonl").read_bytes() == whole
    journal.metrics({"loss": 3})
    assert read_events(journal.folder)[-1].fields["values"] == {"loss": 3.0}


def test_writing_after_the_end_is_an_error(journal: Journal) -> None:
    journal.finish()
    journal.finish()
    with pytest.raises(RuntimeError, match="came too late"):
        journal.metrics({"loss": 1})


def test_git_commit_and_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == {}

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    for name in ("code.py", "dvc.lock"):
        Path(name).write_text("one")
    git("add", ".")
    git("commit", "-m", "one")
    (tmp_path / "dvc.lock").write_text("DVC rewrites it during a run")
    assert git_commit() == {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.dirty": "false"}
    (tmp_path / "code.py").write_text("two")
    assert git_commit()["git.dirty"] == "true"
