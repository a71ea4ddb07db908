"""A journal names its own files alone, and an event that is none holds up nothing else."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.errors import UserError
from pipelines.tracking import Journal
from pipelines.tracking.checks import check_event, check_key, journal_file
from pipelines.tracking.store import find_runs


@pytest.mark.parametrize("key", ["20261122T093000.123-pretrain-hybrid-1f2e3d4c", "a", "-_."])
def test_a_run_key_names_a_folder(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["", ".", "..", ".a", "a/b", "../a", "a\\b", "a'b", "a\n", "ü", "a" * 300])
def test_what_names_more_than_a_folder_is_no_run_key(key: str) -> None:
    with pytest.raises(ValueError, match="no run key"):
        check_key(key)


def test_a_file_of_a_journal_lies_among_its_artifacts(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    (folder / "artifacts/1/docs").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "artifacts/1/docs/page.md").write_text("page")
    (folder / "artifacts/link").symlink_to(tmp_path / "secret")
    (folder / "artifacts/2").mkdir()
    (folder / "artifacts/2/below").symlink_to(tmp_path / "secret")
    (folder / "artifacts/ring").symlink_to("ring")
    assert journal_file(folder, "artifacts/1/docs") == folder / "artifacts/1/docs"
    outside = [str(tmp_path / "secret"), "../secret", "artifacts/../../secret", "artifacts/link", "artifacts/2"]
    for path in [
        *outside,
        "artifacts/ring",
        "",
        ".",
        "artifacts",
        "events.jsonl",
        "artifacts/\0",
        "artifacts/" + "x" * 999,
    ]:
        with pytest.raises(UserError, match=r"events.jsonl"):
            journal_file(folder, path)
    moved = folder.rename(tmp_path / "moved")
    (folder / "x").mkdir(parents=True)
    (folder / "artifacts").symlink_to(moved / "artifacts")
    with pytest.raises(UserError, match=r"events.jsonl"):
        journal_file(folder, "artifacts/1/docs/page.md")


def test_every_event_that_is_written_is_one(root: Path, onnx_file: Path) -> None:
    with Journal.start("report", "hybrid", params={"steps": 3}, root=root) as journal:
        journal.metrics({"a": 1, "nan": float("nan")}, step=1)
        journal.params({"b": 2})
        journal.tags({"c": "ü"})
        journal.dataset("digits", "f" * 64, "data/prepared", {"num_rows": 3}, "training")
        journal.artifact(onnx_file, folder="figures/probe")
        journal.model(onnx_file, "encoder", "registered", {"variant": "hybrid"}, "# Card", onnx_file, [onnx_file])
        journal.nest([journal.key])
        journal.nest_under(journal.key)
        journal.version_tags("registered", journal.key, {"a": "b"})
        journal.promote("registered", journal.key, 0.9, "auroc", True, "gate", "f" * 64, {"version": "1"})
    for line in (journal.folder / "events.jsonl").read_text().splitlines():
        fields = json.loads(line)
        kind = fields.pop("event")
        del fields["time"]
        check_event(kind, fields)
        for name in fields:
            with pytest.raises(UserError, match=name):
                check_event(kind, {key: value for key, value in fields.items() if key != name})
            with pytest.raises(UserError, match=name):
                check_event(kind, fields | {name: object()})


@pytest.mark.parametrize("kind", ["artifact", "model", "example", "extra"])
def test_no_file_from_elsewhere_is_delivered(
    kind: str, root: Path, tmp_path: Path, onnx_file: Path, send, client: MlflowClient, capsys
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with Journal.start("report", root=root) as journal:
        if kind == "artifact":
            journal._write("artifact", path="../../../secret.txt", folder=None)
        else:
            own = journal._keep(onnx_file)
            model = {"path": own, "input_example": None, "extra_files": []}
            model |= {"model": {"path": str(secret)}, "example": {"input_example": str(secret)}}.get(
                kind, {"extra_files": [str(secret)]}
            )
            journal._write("model", name="m", registered_name=f"of-{kind}", tags={}, description="", **model)
        journal.metrics({"after": 1.0})
    assert send().error is None
    (run,) = find_runs(client, journal.key)
    assert run.data.metrics["after"] == 1.0
    assert run.data.tags["gcrl.rejected"].startswith("artifact" if kind == "artifact" else "model")
    assert client.list_artifacts(run.info.run_id) == []
    assert client.search_model_versions(f"name = 'of-{kind}'") == []
    assert "is no file among the journal's own" in capsys.readouterr().err


def test_a_line_that_is_no_event_is_told_with_its_number_and_others_go_on(root: Path, send) -> None:
    with Journal.start("probe", root=root) as broken:
        pass
    with Journal.start("ood", root=root) as whole:
        pass
    events = broken.folder / "events.jsonl"
    events.write_text(events.read_text() + '{"event": 1, "time": 2}\n')
    delivery = send()
    assert (list(delivery.sent), delivery.pending) == ([whole.key], [broken.key])
    assert "events.jsonl, line 3: no event of a journal" in (delivery.error or "")


def test_a_journal_under_another_key_is_not_sent(root: Path, send, client: MlflowClient) -> None:
    with Journal.start("probe", root=root) as journal:
        pass
    journal.folder.rename(journal.folder.with_name("another"))
    assert "holds the journal of another run" in (send().error or "")
    assert find_runs(client, journal.key) == []
