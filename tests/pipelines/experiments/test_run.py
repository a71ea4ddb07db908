"""A study on a machine without the stack: what it leaves, and that it goes on wherever it was interrupted."""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from components.locks import locked
from pipelines.experiments.__main__ import main
from pipelines.experiments.members import Member
from pipelines.experiments.pack import pack
from pipelines.experiments.received import CARRIED
from pipelines.experiments.study_file import make_plan

STAGES = set(CARRIED)

KILLED_IN_TRAINING = """
import os, signal
from pathlib import Path
replace, saves = Path.replace, []

def replace_or_die(path, target):
    saves.append(Path(target).name == "resume.pt")
    if sum(saves) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = replace_or_die
"""


def files(folder: Path) -> dict[str, str]:
    """Every result and a hash of it."""
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted((folder / "runs").rglob("*"))
        if path.is_file() and ".lock" not in path.name
    }


@dataclass(frozen=True)
class Told:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd, monkeypatch, tmp_path) -> Callable[..., Told]:
    """`run(folder, …)` is `python -m pipelines.experiments run FOLDER …`, in this process; without an export."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path, until: str = "ood") -> Told:
        capfd.readouterr()
        code = main(["run", *map(str, arguments), "--until", until])
        return Told(code, *capfd.readouterr())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield call
    torch.set_num_threads(threads)


@pytest.fixture
def study(finished, tmp_path) -> Path:
    """A copy of the finished study, to be changed at will."""
    return Path(shutil.copytree(finished, tmp_path / "small", symlinks=True))


def test_every_stage_leaves_its_results_and_a_journal(finished):
    for model, images in (("hybrid", True), ("wide", False)):
        member = finished / "runs" / model / "seed-3"
        outputs = member / "outputs" / model
        assert {folder.name for folder in outputs.iterdir()} == STAGES
        assert not list(member.rglob("*.png"))  # matplotlib was not there
        assert (outputs / "pretrain/samples.npz").exists() == images
        keys = {json.loads((outputs / stage / "record.json").read_text())["run_key"] for stage in STAGES}
        assert {journal.name for journal in (member / ".tracking/journals").iterdir()} == keys
        assert not list((member / ".scratch").iterdir())
    start = json.loads(next((member / ".tracking/journals").glob("*/events.jsonl")).read_text().splitlines()[0])
    assert start["tags"]["study"] == "small"
    assert start["tags"]["hardware"].startswith("CPU, 1 threads")
    assert "mlflow.source.git.commit" in start["tags"]
    assert start["params"]["seed"] == "3"


def test_the_table_has_models_floors_and_detectors(finished):
    comparison, *detectors = (finished / "table.md").read_text().split("\n\n")
    rows = [line.split(" | ") for line in comparison.splitlines()]
    assert [row[0] for row in rows[2:]] == ["| raw pixels", "| untrained encoder", "| hybrid", "| wide"]
    titles = rows[0]
    assert {"linear probe", "k-NN", "bits/dim", "near-OOD AUROC", "images/s", "MFU", "validation k-NN"} <= set(titles)
    assert "ONNX ms/image" not in titles  # measured nowhere
    wide = dict(zip(titles, rows[-1], strict=True))
    assert wide["bits/dim"] == "–"
    assert wide["steps"] == "20"
    assert wide["MFU"].endswith("%")
    assert detectors[0] == "AUROC on near-OOD sets, by detector:"
    assert detectors[1].splitlines()[0] == "| model | seeds | mahalanobis | knn | energy | nll | fused |"
    assert detectors[1].splitlines()[-1].endswith(f" | – | {wide['near-OOD AUROC']} |")  # nll, and the fused score
    assert detectors[2] == "AUROC on far-OOD sets, by detector:"


def test_numbers_are_those_of_the_stages(finished):
    table = {
        tuple(line.split(",")[:3]): line.split(",")[3] for line in (finished / "numbers.csv").read_text().splitlines()
    }
    probe = json.loads((finished / "runs/hybrid/seed-3/outputs/hybrid/probe/results.json").read_text())["metrics"]
    assert float(table["hybrid", "3", "probe/linear_accuracy"]) == probe["linear_accuracy"]
    assert ("wide", "3", "ood/nll/near/auroc") not in table


def test_run_again_it_does_nothing_and_a_missing_stage_alone_is_made_up_for(run, study):
    before = files(study)
    assert " took " not in run(study).out
    assert files(study) == before
    shutil.rmtree(study / "runs/wide/seed-3/outputs/wide/ood")
    done = run(study)
    assert next(line for line in done.out.splitlines() if " took " in line).startswith("wide, seed 3: ood took")
    same = {name for name, digest in files(study).items() if before.get(name) == digest}
    assert {name for name in before if name.endswith("/ood/scores.parquet")} <= same  # what it was, bit for bit


def test_results_of_other_settings_are_refused(run, study):
    done = run(study, "--set", "model.decoder_layers=2", "--models", "hybrid")
    assert done.code == 2
    assert "runs/hybrid/seed-3: holds results of other settings" in done.err
    assert "model.decoder_layers: 1 then, 2 now" in done.err
    assert "Traceback" not in done.err
    only_how = ("training.checkpoint_seconds=1", "training.micro_batch_size=32")  # it is computed, not what
    assert run(study, "--set", *only_how).code == 0


def test_a_change_with_a_name_is_another_model(run, study):
    before = files(study)
    name = ("--models", "hybrid", "--set", "model.decoder_layers=2", "training.steps=6", "--as", "deep")
    run(study, *name, until="pretrain")
    member = Member.open(study / "runs/deep/seed-3")
    assert (member.model, member.params.model.decoder_layers) == ("deep", 2)
    assert {k: v for k, v in files(study).items() if "/deep/" not in k} == before
    assert "| deep | 1 |" in (study / "table.md").read_text()


def test_a_budget_of_seconds(run, study):
    """How many steps that is belongs to the machine; that it ends by the clock is told by what it counted."""
    run(study, "--models", "wide", "--seconds", "0.2", "--as", "quick", until="pretrain")
    metrics = Member.open(study / "runs/quick/seed-3").results("pretrain")
    assert metrics["trained_seconds"] >= 0.2
    assert metrics["steps"] > 1


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--models", "hybird"], 2, "no model 'hybird' in the study. It has: hybrid, wide."),
        (["--set", "model.width"], 2, "expected KEY=VALUE"),
        (["--set", "model.widht=3"], 2, "model.widht: unknown key, did you mean 'width'"),
        (["--set", "model.width=3", "--as", "new"], 2, "changes one model into another; say which with --models"),
        (["--models", "wide", "--set", "data.val_fraction=0.2", "--as", "new"], 2, "share their images"),
        (
            ["--set", "data.val_fraction=0.2"],
            2,
            "other settings (data.val_fraction: 0.1 then, 0.2 now)",
        ),
        (["--models", "wide", "--set", "training.learning_rate=1e30", "--as", "wild"], 1, "wild, seed 3: step"),
    ],
)
def test_mistakes_are_told(run, study, options, code, told):
    done = run(study, *options)
    assert done.code == code
    assert told in done.err
    assert "Traceback" not in done.err


def test_a_method_that_the_images_cannot_serve_is_told_and_left_out(run, study):
    plan = json.loads((study / "study.json").read_text())
    crowded = json.loads(json.dumps(plan["models"]["wide"]))
    settings = crowded["variants"].pop("wide") | {"contrastive": {"name": "deepcluster", "clusters": 5000}}
    plan["models"]["crowded"] = crowded | {"variants": {"crowded": settings}}
    (study / "study.json").write_text(json.dumps(plan))
    for options in ((), ("--jobs", "2")):
        done = run(study, *options)
        assert done.code == 0
        assert "left out: crowded, seed 3: " in done.err
        assert "error" not in done.err
    done = run(study, "--models", "crowded")
    assert done.code == 1, "there is no other"
    plan["models"]["crowded"]["variants"]["crowded"]["contrastive"]["clusters"] = 3
    (study / "study.json").write_text(json.dumps(plan))
    shutil.rmtree(study / "runs/crowded")
    done = run(study, "--models", "crowded", until="pretrain")
    assert (done.code, done.err.count("left out")) == (0, 0)


def test_images_made_with_other_settings_are_refused(run, study):
    shutil.rmtree(study / "runs")
    shutil.rmtree(study / "baselines")
    done = run(study, "--set", "data.val_fraction=0.2")
    assert done.code == 2
    assert "data/prepared: made with other data.* settings" in done.err
    assert not list((study / "runs").rglob("results.json"))


def test_images_that_cannot_be_prepared_are_told_once(run, write_study, tmp_path):
    labelled = {"builtin": "digits", "exclude_classes": ["ten"]}
    make_plan(write_study(baselines=False, overrides={"data.labelled": labelled}), tmp_path / "study")
    done = run(tmp_path / "study")
    assert done.code == 1
    assert done.err.count("no class 'ten'") == 1


def test_a_member_that_another_process_works_at_is_left_to_it(run, study):
    shutil.rmtree(study / "runs/wide/seed-3/outputs/wide/ood")
    with locked(study / "runs/wide/seed-3/.lock"):
        done = run(study)
    assert "1 of 2 are being worked at by another process" in done.out
    assert not (study / "runs/wide/seed-3/outputs/wide/ood").exists()


def test_two_jobs_share_the_models(run, study):
    before = files(study)
    for model in ("hybrid", "wide"):
        shutil.rmtree(study / f"runs/{model}/seed-3/outputs/{model}/ood")
    done = run(study, "--jobs", "2")
    assert done.code == 0
    assert {line.split(":")[0] for line in done.out.splitlines() if " took " in line} == {
        "hybrid, seed 3",
        "wide, seed 3",
    }
    assert "2 of 2 have finished ood" in done.out
    now = files(study)
    assert {name for name in before if name.endswith("/ood/scores.parquet")} <= {
        name for name, digest in now.items() if before.get(name) == digest
    }


def test_a_study_that_was_moved_goes_on(run, study, tmp_path):
    moved = study.rename(tmp_path / "elsewhere")
    shutil.rmtree(moved / "runs/wide/seed-3/outputs/wide/ood")
    run(moved, "--models", "wide")
    assert (moved / "runs/wide/seed-3/outputs/wide/ood/results.json").exists()


def test_a_study_that_came_back_packed_goes_on_here(run, study, finished, tmp_path):
    """Trained there, evaluated here."""
    for stage in ("embed", "probe", "ood"):
        shutil.rmtree(study / f"runs/wide/seed-3/outputs/wide/{stage}")
    shutil.rmtree(study / "runs/hybrid")
    pack(study, tmp_path / "fetched", 16, 8)
    assert run(tmp_path / "fetched", "--models", "wide").code == 0
    ours, theirs = (Member.open(folder / "runs/wide/seed-3") for folder in (tmp_path / "fetched", finished))
    for stage in ("probe", "ood"):
        assert ours.results(stage) == pytest.approx(theirs.results(stage), rel=1e-6)

    other = tmp_path / "other"
    pack(study, other, 16, 8)
    done = run(other, "--models", "wide", "--set", "data.labelled.limit=399")
    assert "other settings (data.labelled.limit: 400 then, 399 now)" in done.err


def test_what_the_archive_had_no_room_for_is_told(run, study):
    wide = study / "runs/wide/seed-3/outputs/wide"
    shutil.rmtree(wide / "ood")
    for path in (wide / "embed").glob("*.npy"):
        path.unlink()
    done = run(study)
    assert done.code == 1
    assert f"error: wide, seed 3: ood needs {wide}/embed/train.features.npy, which was not packed." in done.err
    shutil.rmtree(wide / "embed")
    (wide / "pretrain/model.safetensors").unlink()
    assert f"embed needs {wide}/pretrain/model.safetensors, which was not packed." in run(study).err
    shutil.rmtree(study / "runs/wide/seed-3")
    assert run(study).code == 0


def test_killed_in_training_it_ends_where_the_uninterrupted_one_ends(bare, run, finished, tmp_path):
    shutil.copy(finished / "study.json", tmp_path)
    options = ("run", tmp_path, "--models", "wide", "--until", "pretrain")
    done = bare(*options, before=KILLED_IN_TRAINING, code=None)
    assert done.returncode == -signal.SIGKILL, done.stderr
    member = tmp_path / "runs/wide/seed-3"
    assert not (member / "outputs/wide/pretrain").exists()
    assert list((member / ".scratch").glob("*/resume.pt"))
    assert run(tmp_path, "--models", "wide", until="pretrain").code == 0
    weights = "runs/wide/seed-3/outputs/wide/pretrain/model.safetensors"
    ours, theirs = (load_file(folder / weights) for folder in (tmp_path, finished))
    assert set(ours) == set(theirs)
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert not (member / "outputs/wide/embed").exists()
