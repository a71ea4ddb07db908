"""A study that somebody made to do harm: refused whole, in one message, with nothing written or read elsewhere."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from components.errors import UserError
from pipelines.experiments.importing import import_study, read_study
from pipelines.experiments.pack import pack, unpack
from pipelines.experiments.plan import Plan
from tests.pipelines.experiments.archives import (
    MEMBER,
    RECORD,
    edited,
    fetched,
    journal_of,
    member,
    refused,
    tar,
    with_event,
)


def test_what_is_valid_is_taken(valid, project):
    ((found, journals),) = read_study(fetched(project, tar(valid)), project / "data/prepared")
    assert (found.model, set(journals)) == ("wide", {"pretrain", "embed", "probe", "ood"})


@pytest.mark.parametrize(
    "entry",
    [
        member(f"{MEMBER}/outputs/wide/probe/a.csv", tarfile.SYMTYPE, "../../../../../../../secret.json"),
        member(f"{MEMBER}/outputs/wide/probe/a.csv", tarfile.LNKTYPE, RECORD),
        member(f"{MEMBER}/outputs/wide/probe/a.csv", tarfile.CHRTYPE),
        member(f"{MEMBER}/outputs/wide/probe/a.csv", tarfile.FIFOTYPE),
        member(f"{MEMBER}/outputs/wide/probe/a.csv", tarfile.DIRTYPE),
        member("/tmp/absolute.csv"),
        member(f"{MEMBER}/outputs/wide/probe/../../../../../../outside.csv"),
        member("../outside"),
        member(f"{MEMBER}/torch/__init__.py"),
        member("torch/__init__.py"),
        member(f"{MEMBER}/outputs/wide/export/model.onnx"),
        member(f"{MEMBER}/outputs/wide/embed/train.npy"),
        member(RECORD),
        member(f"{RECORD}/below"),
    ],
    ids=lambda entry: f"{entry.name[-24:]}-{entry.type.decode()}",
)
def test_an_archive_with_one_bad_member_is_refused_and_nothing_unpacked(entry, valid, project):
    study = fetched(project, tar(valid, entry))
    assert str(study) in refused(project, study)
    assert [path.name for path in study.iterdir()] == ["study.tar.000"]
    assert sorted(path.name for path in project.parent.iterdir()) == ["fetched", "project", "secret.json"]


def test_a_size_that_no_archive_holds_is_refused(valid, project):
    entry = member(f"{MEMBER}/outputs/wide/probe/a.csv")
    content = bytearray(tar(valid, entry))
    entry.size = 2**40
    start = content.index(entry.name.encode())
    content[start : start + tarfile.BLOCKSIZE] = entry.tobuf(tarfile.GNU_FORMAT)
    assert "damaged" in refused(project, fetched(project, bytes(content)))


def test_nothing_is_unpacked_through_a_link_that_lies_there(valid, project):
    study = fetched(project, tar(valid))
    (study / "runs").symlink_to(project.parent)
    assert "a link leads elsewhere" in refused(project, study)


@pytest.mark.parametrize("key", ["../../torch", "..", ".hidden", "a/b", "", "a' OR 1=1", 7, None])
def test_a_run_key_that_is_none_is_refused(key, valid, project):
    assert "record.json" in refused(project, fetched(project, tar(edited(valid, RECORD, run_key=key))))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (RECORD, {"stage": "pretrain"}),
        (RECORD, {"variant": "hybrid"}),
        (RECORD, {"finished": "yesterday"}),
        (RECORD, {"finished": 1e300}),
        (RECORD, {"seconds": 10**400}),
        (f"{MEMBER}/outputs/wide/probe/results.json", {"metrics": {"linear_accuracy": "0.9"}}),
        (f"{MEMBER}/outputs/wide/probe/results.json", {"metrics": {"../accuracy": 0.9}}),
        (f"{MEMBER}/settings.json", {"seed": 4}),
        (f"{MEMBER}/settings.json", {"variants": {"../../wide": {"w_gen": 0.0, "w_con": 1.0}}}),
        (f"{MEMBER}/settings.json", {"tracking": {"experiment": "x" * 600, "registered_model": "m"}}),
        (f"{MEMBER}/data/prepared/dataset.json", {"classes": 3}),
        (f"{MEMBER}/data/prepared/dataset.json", {"splits": {"../test": {"count": 1, "fingerprint": "f"}}}),
    ],
)
def test_a_file_that_holds_something_else_is_named(name, keys, valid, project):
    assert name.rpartition("/")[2] in refused(project, fetched(project, tar(edited(valid, name, **keys))))


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"{", b"[]", b"9" * 5000, b""])
def test_what_is_no_json_is_named(content, valid, project):
    for name in (RECORD, f"{MEMBER}/settings.json", f"{journal_of(valid, 'probe')}/events.jsonl"):
        told = refused(project, fetched(project, tar(valid | {name: content + b"\n"})))
        assert name.rpartition("/")[2] in told
        shutil.rmtree(project.parent / "fetched")


def test_a_curve_that_is_none_is_named_with_its_line(valid, project):
    name = f"{MEMBER}/outputs/wide/pretrain/curves.csv"
    lines = valid[name].splitlines(keepends=True)
    bad = valid | {name: b"".join([*lines[:2], b"five" + lines[2][1:], *lines[3:]])}
    assert "curves.csv, line 3: " in refused(project, fetched(project, tar(bad)))


def test_a_study_without_the_journal_that_a_record_names_is_refused(valid, project):
    bad = {name: content for name, content in valid.items() if not name.startswith(journal_of(valid, "probe"))}
    assert "events.jsonl: not there" in refused(project, fetched(project, tar(bad)))


@pytest.mark.parametrize(
    "event",
    [
        {"event": "artifact", "path": "SECRET", "folder": None},
        {"event": "artifact", "path": "../../../../../../../secret.json", "folder": None},
        {"event": "artifact", "path": "artifacts/1/absent.json", "folder": None},
        {"event": "artifact", "path": "events.jsonl", "folder": None},
        {"event": "artifact", "path": ".", "folder": None},
        {"event": "artifact", "path": "artifacts/1/results.json", "folder": "../.."},
        {"event": "artifact", "path": "artifacts/1/results.json"},
        {
            "event": "model",
            "path": "SECRET",
            "name": "m",
            "registered_name": "gcrl",
            "tags": {},
            "description": "<script>",
            "input_example": "SECRET",
            "extra_files": ["SECRET"],
        },
        {
            "event": "promote",
            "registered_name": "gcrl",
            "model_run_key": "k",
            "score": 9.0,
            "score_name": "s",
            "gate_passed": True,
            "gate": "",
            "data_fingerprint": "x",
            "comparison": None,
        },
        {"event": "version_tags", "registered_name": "gcrl", "model_run_key": "k", "tags": {"gate_passed": "True"}},
        {"event": "nest", "children": ["20261101T000000.000-report-hybrid-00000000"]},
        {"event": "nest_under", "parent": "20261101T000000.000-report-hybrid-00000000"},
        {"event": "delete"},
        {"event": ["start"]},
        {"event": "tags", "tags": {"mlflow.parentRunId": "1"}},
        {"event": "tags", "tags": {"mlflow.note.content": "<script>"}},
        {"event": "tags", "tags": {"gcrl.run_key": "other"}},
        {"event": "tags", "tags": {"kind": "model"}},
        {"event": "tags", "tags": {"study.run": "other"}},
        {"event": "tags", "tags": {"study": "x" * 9000}},
        {"event": "tags", "tags": {"study": "\ud800"}},
        {"event": "tags", "tags": {"study": 1}},
        {"event": "metrics", "values": {"a": "1"}, "step": 0},
        {"event": "metrics", "values": {"a": 1}, "step": 2**70},
        {"event": "metrics", "values": {"a": 1}, "step": 0, "time": -1},
        {"event": "params", "params": {"../a": "1"}},
        {"event": "dataset", "name": "t", "digest": "d", "source": "/etc/passwd", "profile": {}, "context": None},
        {"event": "start", "key": "k", "name": "n", "experiment": "e", "params": {}, "tags": {}},
        {"event": "finish", "status": "FINISHED"},
    ],
    ids=lambda event: json.dumps(event)[10:60],
)
def test_an_event_that_no_stage_writes_is_refused_with_its_line(event, valid, project):
    text = json.dumps(event).replace("SECRET", str(project.parent / "secret.json"))
    told = refused(project, fetched(project, tar(with_event(valid, "probe", **json.loads(text)))))
    assert "events.jsonl" in told
    if event["event"] not in ("start", "finish"):  # which are wrong by their place
        assert "line 2" in told


@pytest.mark.parametrize(
    "changes", [{"key": "20261101T000000.000-probe-wide-00000000"}, {"experiment": "production"}, {"name": "x" * 600}]
)
def test_a_journal_of_another_run_or_experiment_is_refused(changes, valid, project):
    name = f"{journal_of(valid, 'probe')}/events.jsonl"
    first, *others = valid[name].splitlines(keepends=True)
    start = json.dumps(json.loads(first) | changes).encode() + b"\n"
    assert "line 1" in refused(project, fetched(project, tar(valid | {name: b"".join([start, *others])})))


@pytest.fixture
def unpacked(valid, project) -> Path:
    """The same study as a folder."""
    study = fetched(project, tar(valid))
    unpack(study)
    (study / "study.tar.000").unlink()
    return study


@pytest.mark.parametrize("place", ["outputs/wide/probe/a.png", "outputs/wide/probe", ".tracking/journals", "data", ""])
def test_a_link_in_a_folder_is_refused(place, unpacked, project):
    link = unpacked / MEMBER / place
    if link.exists():
        shutil.move(link, project.parent / "elsewhere")
        link.symlink_to(project.parent / "elsewhere")
    else:
        link.symlink_to(project.parent / "secret.json")
    assert str(link) in refused(project, unpacked)


def test_a_pipe_in_a_folder_is_refused(unpacked, project):
    os.mkfifo(unpacked / MEMBER / "outputs/wide/probe/scores.png")
    assert "neither a file nor a folder" in refused(project, unpacked)


def test_images_may_be_linked_within_the_study_or_from_the_project_and_from_nowhere_else(unpacked, project):
    link = unpacked / MEMBER / "data/prepared"
    for place in (unpacked / "data/prepared", project / "data/prepared", project.parent / "other"):
        place.parent.mkdir(exist_ok=True)
        shutil.copytree(link, place)
    for allowed in (project / "data/prepared", unpacked / "data/prepared"):
        shutil.rmtree(link) if link.is_dir() and not link.is_symlink() else link.unlink()
        link.symlink_to(allowed)
        assert len(read_study(unpacked, project / "data/prepared")) == 1
    (unpacked / "data/prepared/test.npy").symlink_to(project.parent / "secret.json")
    with pytest.raises(UserError, match="links in it"):
        read_study(unpacked, project / "data/prepared")
    link.unlink()
    link.symlink_to(project.parent / "other")
    with pytest.raises(UserError, match="leads out of the study"):
        read_study(unpacked, project / "data/prepared")


@pytest.mark.parametrize("name", ["probe/figures.npz", "ood/thresholds.json"])
def test_a_damaged_file_that_a_figure_is_drawn_from_stops_the_import_before_anything_is_handed_over(
    name, unpacked, project, empty_store
):
    (project / "mlruns").mkdir()
    shutil.copy(empty_store, project / "mlruns/mlflow.db")
    path = unpacked / MEMBER / "outputs/wide" / name
    path.write_bytes(path.read_bytes()[:40].replace(b",", b";").replace(b":", b";"))
    with pytest.raises(UserError, match=r"seed-3"):
        import_study(unpacked)
    assert not (project / ".tracking/journals").exists()
    assert not any((project / ".scratch").rglob("*.png"))


def test_a_packed_record_cannot_bring_along_files_from_elsewhere(unpacked, project):
    (project.parent / "private").mkdir()
    (project.parent / "private/key").write_text("secret")
    path = unpacked / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run_key": "../../../../../../private"}))
    with pytest.raises(UserError, match="no run key"):
        pack(unpacked, project.parent / "out", 16, 8)


@pytest.mark.parametrize("name", ["../../../outside", "/tmp/outside", "a/b", ".hidden", ""])
def test_a_plan_names_no_folder_outside_of_the_study(name, valid, project):
    plan = json.loads(valid["study.json"])
    model = next(iter(plan["models"].values()))
    (project / "study.json").write_text(json.dumps(plan | {"models": {name: model}}))
    with pytest.raises(UserError, match="a model's name is a folder's name"):
        Plan.open(project)
