"""What all stages have in common: the command, the journal around their work, results that are whole or not there."""

import importlib
import inspect
import json
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from components.data.config import DataConfig, Source
from components.data.prepare import LeftOut
from components.errors import UserError
from pipelines.config.params import Params, load_params
from pipelines.paths import VALIDATION_FAILED
from pipelines.stages import prepare
from pipelines.stages.__main__ import main
from pipelines.stages.attempts import forget
from pipelines.stages.registry import all_stages
from pipelines.stages.results import constants_of, metrics_of, record_of
from pipelines.stages.stage_run import stage_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(tmp_path, monkeypatch) -> Params:
    """The default configuration, in an empty folder whose MLflow server cannot be reached."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return load_params()


def journal() -> list[dict]:
    """Events of the only journal."""
    (events,) = Path(".tracking/journals").glob("*/events.jsonl")
    return [json.loads(line) for line in events.read_text().splitlines()]


def everything() -> set[str]:
    return {str(path) for path in Path().rglob("*") if ".tracking" not in path.parts}


@pytest.mark.parametrize("name", all_stages())
def test_a_declaration_is_what_its_module_says(name):
    """It was read without the module."""
    module = importlib.import_module(f"pipelines.stages.{name}")
    assert all_stages()[name] == module.STAGE
    takes = len([p for p in inspect.signature(module.run).parameters.values() if p.default is p.empty])
    assert takes == (1 if module.STAGE.per == "run" else 2)


@pytest.mark.parametrize("command", ["check", "sources"])
def test_what_runs_every_time_imports_nothing_heavy(tmp_path, command):
    """`make run` begins with both; a mistake in params.yaml is told without waiting for torch."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipelines.stages.__main__ import main; "
        f"code = main([{command!r}]); heavy = {{'torch', 'mlflow', 'numpy', 'sklearn', 'pandas'}} & set(sys.modules); "
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"


def test_the_report_of_an_earlier_violation_is_removed(params):
    """Not by `validate` alone: where the data is repaired, DVC may have its result in the cache."""
    VALIDATION_FAILED.mkdir(parents=True)
    (VALIDATION_FAILED / "summary.md").write_text("violated")
    assert main(["sources"]) == 0
    assert not VALIDATION_FAILED.exists()


def test_weights_to_start_from_are_noticed_as_images_are(params, capsys):
    values = YAML(typ="safe").load(Path("params.yaml"))
    values["training"]["start_from"] = "low/{variant}"
    values["model"]["likelihood"] = "categorical"
    values["variants"]["foundation"] = {
        "w_gen": 0.0,
        "w_con": 0.0,
        "encoder": {"timm": "resnet18", "weights": "theirs"},
    }
    YAML().dump(values, Path("params.yaml"))
    Path("low").mkdir()
    for name in ("low/hybrid", "low/generative", "theirs"):
        Path(name).write_text(name)
    assert main(["sources"]) == 1
    told = "variants.contrastive: there is no file low/contrastive, which training.start_from or encoder.weights names."
    assert told in capsys.readouterr().err
    Path("low/contrastive").write_text("x")
    assert main(["sources"]) == 0
    before = {file.stem: file.read_text() for file in Path("outputs/sources/start").iterdir()}
    Path("theirs").write_text("others")
    assert main(["sources"]) == 0
    after = {file.stem: file.read_text() for file in Path("outputs/sources/start").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"foundation"}


def test_check_writes_nothing(params):
    before = everything()
    assert main(["check"]) == 0
    assert everything() == before
    assert not Path(".tracking").exists()


def test_a_configuration_mistake_is_exit_code_2(params, capsys):
    values = YAML(typ="safe").load(Path("params.yaml"))
    YAML().dump(values | {"sede": 1}, Path("params.yaml"))
    assert main(["check"]) == 2
    assert capsys.readouterr().err.startswith("error: params.yaml: sede: unknown key, did you mean 'seed'")


def test_a_certificate_that_nobody_asked_for_is_exit_code_2(params, capsys):
    assert main(["certificate", "--variant", "hybrid"]) == 2
    assert capsys.readouterr().err.startswith("error: params.yaml: certificate: no entry for 'hybrid'. Add one, `certi")
    assert not Path("outputs").exists()


def test_an_interruption_is_exit_code_130(params, monkeypatch, capsys):
    def interrupted(_: Params) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "run", interrupted)
    assert main(["prepare"]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on\n"


def test_prepare_tells_how_many_images_it_left_out_and_how_many_it_did_not_decode(params, capsys, monkeypatch):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        place = Path("pets", "cat" if number % 2 else "dog", f"{number}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    data = DataConfig(image_size=8, channels=1, labelled=Source(folder="pets"), max_quarantined=0.5)
    params = replace(changed(params, "training", batch_size=2), data=data)
    prepare.run(params)
    told = "; no image left out\n0 of 20 decoded images taken from the cache\n"
    assert capsys.readouterr().out.endswith(told)
    assert Path(".cache/decoded").is_dir()

    Path("pets/cat/broken.png").write_text("no image")
    shutil.copy("pets/cat/1.png", "pets/cat/again.png")
    shutil.copy("pets/cat/3.png", "pets/dog/cat.png")
    prepare.run(params)
    counts = "1 unusable, 1 duplicate, 2 of contradicting labels"
    told = f"; 4 images left out ({counts}), listed in data/prepared/quarantine.csv\n"
    assert capsys.readouterr().out.endswith(f"{told}22 of 23 decoded images taken from the cache\n")
    left_out = {"quarantined": 1, "duplicates": 1, "label_conflicts": 2}
    assert metrics_of("prepare").items() >= left_out.items()
    assert len(Path("data/prepared/quarantine.csv").read_text().splitlines()) == 1 + sum(left_out.values())
    prepare.run(replace(params, data=replace(data, cache_gib=0.0)))
    assert capsys.readouterr().out.endswith(told)
    monkeypatch.setenv("PIPELINE_TRACKING", "/project/.tracking")
    assert prepare.cache_folder() == Path("/project/.cache/decoded")
    assert prepare.told(LeftOut(1, 0, 0)) == "1 image left out (1 unusable), listed in data/prepared/quarantine.csv"


def test_a_stage_leaves_results_a_record_and_a_journal(params):
    with stage_run(params, "probe", "hybrid", {"probe": params.probe}) as stage, stage.folder() as out:
        out.metrics = {"accuracy": 0.5}
        out.constants = {"k": 3}
        (out.path / "figure.png").write_bytes(b"a picture")
    assert metrics_of("probe", "hybrid") == {"accuracy": 0.5}
    assert constants_of("probe", "hybrid") == {"k": 3}
    record = record_of("probe", "hybrid")
    assert (record["stage"], record["variant"]) == ("probe", "hybrid")
    assert 0 <= record["seconds"] < 60
    assert {path.name for path in Path("outputs/hybrid/probe").iterdir()} == {
        "results.json",
        "record.json",
        "figure.png",
    }
    start, *_, finish = events = journal()
    assert start["key"] == record["run_key"]
    assert start["name"] == "hybrid · probe"
    assert start["params"]["seed"] == "0"
    assert start["params"]["probe.draws"] == "5"
    assert finish["status"] == "FINISHED"
    assert {"accuracy": 0.5, "stage_seconds": record["seconds"]} in [event.get("values") for event in events]
    assert [Path(event["path"]).name for event in events if event["event"] == "artifact"] == [
        "results.json",
        "figure.png",
    ]


def test_offline_nothing_is_sent_and_nothing_said(params, monkeypatch, capsys):
    monkeypatch.setenv("PIPELINE_OFFLINE", "1")
    with pytest.raises(UserError), stage_run(params, "probe", "hybrid") as stage, stage.watched():
        raise UserError("the labels are upside down")
    assert journal()[-1]["status"] == "FAILED"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("metrics", [{"accuracy": float("nan")}, {"accuracy": 0.9}])
def test_a_stage_that_fails_leaves_the_earlier_results(params, metrics, capsys):
    folder = Path("outputs/hybrid/probe")
    folder.mkdir(parents=True)
    (folder / "results.json").write_text('{"metrics": {"accuracy": 0.5}, "constants": {}}')
    before = everything()

    def fail() -> None:
        with stage_run(params, "probe", "hybrid") as stage, stage.folder() as out:
            out.metrics = metrics
            (out.path / "half.npy").write_bytes(b"half a file")
            if metrics["accuracy"] == 0.9:
                raise UserError("the labels are upside down")

    with pytest.raises((UserError, ValueError)):  # NaN is no JSON
        fail()
    assert everything() == before
    assert metrics_of("probe", "hybrid") == {"accuracy": 0.5}
    finish = journal()[-1]
    assert finish["status"] == "FAILED"
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("MLflow: ")


def test_what_a_killed_try_left_is_cleared_away(params):
    left = Path("outputs/hybrid/.probe.k1ll3d00.tmp")
    (left / "probe").mkdir(parents=True)
    (left / "probe" / "model.safetensors").write_bytes(b"half a file")
    (left / "lock").touch()
    with stage_run(params, "probe", "hybrid") as stage, stage.folder() as out:
        out.metrics = {"accuracy": 0.5}
    assert [path.name for path in Path("outputs/hybrid").iterdir()] == ["probe"]


def test_results_that_are_not_there_name_the_command(params):
    with pytest.raises(UserError, match=r"outputs/hybrid/ood/results.json: not found.*`dvc repro`"):
        metrics_of("ood", "hybrid")


@pytest.fixture
def prepared(tmp_path):
    """A prepared set of eight black images."""
    from components.data.prepared import Prepared

    folder = tmp_path / "prepared"
    folder.mkdir()
    np.save(folder / "palette.npy", np.array([[0], [255]], dtype=np.uint8))
    meta = {"splits": {"train": {"fingerprint": "f" * 64}}}
    (folder / "dataset.json").write_text(json.dumps(meta))
    return Prepared.open(folder)


def changed(params: Params, section: str, **values: object) -> Params:
    return replace(params, **{section: replace(getattr(params, section), **values)})


def test_a_resume_file_is_for_one_configuration_data_and_code(params, prepared, monkeypatch):
    from pipelines.stages import pretrain, training
    from pipelines.stages.pretrain import resume_key_of

    monkeypatch.setattr(training, "ROOT", Path())
    monkeypatch.setattr(pretrain, "TRAINING_CODE", ("code.py",))
    Path("code.py").write_text("x = 1\n")
    key = resume_key_of(params, "hybrid", prepared)
    assert resume_key_of(params, "hybrid", prepared) == key
    others = [
        resume_key_of(params, "contrastive", prepared),
        resume_key_of(replace(params, seed=1), "hybrid", prepared),
        resume_key_of(changed(params, "model", width=64), "hybrid", prepared),
        resume_key_of(changed(params, "training", steps=77), "hybrid", prepared),
        resume_key_of(changed(params, "augmentation", flip=True), "hybrid", prepared),
    ]
    Path("code.py").write_text("x = 2\n")
    others.append(resume_key_of(params, "hybrid", prepared))
    Path("code.py").write_text("x = 1\n")
    prepared.meta["splits"]["train"]["fingerprint"] = "e" * 64
    others.append(resume_key_of(params, "hybrid", prepared))
    assert len({key, *others}) == 1 + len(others)
    prepared.meta["splits"]["train"]["fingerprint"] = "f" * 64
    unrelated = changed(changed(params, "probe", draws=9), "ood", k=3)
    assert resume_key_of(unrelated, "hybrid", prepared) == key


def nested() -> dict[str, list[str]]:
    """What each journal nests, by its run key."""
    found = {}
    for file in Path(".tracking/journals").glob("*/events.jsonl"):
        events = [json.loads(line) for line in file.read_text().splitlines()]
        found[file.parent.name] = [key for event in events if event["event"] == "nest" for key in event["children"]]
    return found


def test_a_stage_nests_the_attempts_before_it(params, monkeypatch):
    def attempt(fails: bool = False, stage: str = "embed", variant: str | None = "hybrid", **settings: Any) -> str:
        with suppress(RuntimeError), stage_run(params, stage, variant, {"embed": {"a": 1} | settings}) as run:
            if fails:
                raise RuntimeError
        return run.journal.key

    failed, failed_again = attempt(fails=True), attempt(fails=True)
    others = [attempt(a=2), attempt(variant="contrastive"), attempt(stage="probe"), attempt(variant=None)]
    first, second = attempt(), attempt()
    assert nested() == {
        **{key: [] for key in (failed, failed_again, *others)},
        first: [failed, failed_again],
        second: [first],  # which DVC did not keep, or which was forced: it is no model's run of its own
    }
    forget("embed", "hybrid")  # as `report` does
    third, other = attempt(), attempt(variant="contrastive")
    assert nested().items() >= {third: [], other: [others[1]]}.items()
    monkeypatch.setenv("PIPELINE_OFFLINE", "1")
    offline = attempt()
    monkeypatch.delenv("PIPELINE_OFFLINE")
    fourth = attempt()
    assert nested().items() >= {offline: [], fourth: [third]}.items()


def test_a_students_resume_file_is_for_one_teacher(prepared):
    from pipelines.stages.training import resume_key

    keys = {resume_key(0, [], prepared, (), weights) for weights in (b"", b"weights", b"other weights")}
    assert len(keys) == 3


def test_the_code_that_a_resume_file_is_for_exists():
    from pipelines.stages.pretrain import TRAINING_CODE

    assert all((ROOT / place).exists() for place in TRAINING_CODE)


def test_progress_tells_the_last_step_and_not_every_one(params, capsys):
    from pipelines.stages.training import Progress

    progress = Progress(params.training)
    last = params.training.steps
    for step in (1, 2, 3, last):
        progress(step, {"nll_nats_per_token": 2.5, "images_per_second": 1000.0})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == [f"1/{last}", f"{last}/{last}"]
    assert lines[-1].endswith("nll_nats_per_token 2.500  1,000 images/s  0 s left")


def test_progress_is_silent_about_steps_that_an_earlier_process_took(params, capsys):
    from pipelines.stages.training import Progress

    progress = Progress(params.training, earlier=20)
    for step, metrics in ((10, {"val/knn_accuracy": 0.5}), (20, {}), (21, {"nll_nats_per_token": 2.5})):
        progress(step, {**metrics, "images_per_second": 1000.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("step 21/")
    assert "val/knn_accuracy 0.500  nll_nats_per_token 2.500" in line  # but knows what was last seen


def test_progress_by_the_clock_tells_its_share(params, capsys):
    from pipelines.flows.dvc_runner import PROGRESS
    from pipelines.stages.training import Progress

    progress = Progress(replace(params.training, seconds=60.0))
    for step, spent in ((5, 15.0), (22, 60.5)):
        progress(step, {"trained_seconds": spent, "images_per_second": 1000.0})
    lines = capsys.readouterr().err.splitlines()
    assert [line[:14].strip() for line in lines] == ["step 5 (25%)", "step 22 (100%)"]
    assert [found[3] for line in lines if (found := PROGRESS.match(line))] == ["25", "100"]
