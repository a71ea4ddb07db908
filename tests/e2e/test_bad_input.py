"""Mistakes of a user, given to the real commands: one message, an exit code, nothing half-written."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.e2e


def state(project) -> dict[str, str]:
    """Every file of data/ and outputs/; temporary ones would show."""
    return project.files("data", "outputs")


def assert_refused(told, code: int, *parts: str) -> None:
    assert told.code == code, told.err
    assert told.err.startswith("error: "), told.err
    assert told.err.count("error: ") == 1
    assert "Traceback" not in told.err
    for part in parts:
        assert part in told.err


# what argparse refuses


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["pretrian", "--variant", "hybrid"], "invalid choice: 'pretrian'"),
        ([], "required: stage"),
        (["pretrain"], "stage pretrain needs --variant"),
        (["prepare", "--variant", "hybrid"], "stage prepare takes no --variant"),
    ],
)
def test_a_wrong_command_shows_the_usage(stage, fresh, arguments, part):
    told = stage(fresh, *arguments)
    assert told.code == 2
    assert told.err.startswith("usage: python -m pipelines.stages")
    assert part in told.err


# params.yaml: refused before anything is written


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"training.stepz": 5}, ["training.stepz: unknown key, did you mean 'steps'"]),
        ({"probe.draws": "five"}, ["probe.draws: expected an integer, found 'five'"]),
        ({"ood.detectors": ["fused", "mahalanobbis"]}, ["did you mean 'mahalanobis'"]),
        ({"variants.hybrid.contrastive": {"name": "nt-xent"}}, ["did you mean 'nt_xent'"]),
        ({"variants.hybrid": {"w_gen": 0.0, "w_con": 0.0}}, ["both 0", "nothing to learn from"]),
        ({"model.patch_size": 3}, ["3 does not divide data.image_size (8)"]),
        ({"gate.score": None}, ["gate.score: missing; this key is required"]),
    ],
    ids=str,
)
def test_params(stage, fresh, tmp_path, changes, parts):
    project = fresh.copy(tmp_path / "project")
    project.edit(changes)
    assert_refused(stage(project, "prepare"), 2, "params.yaml: ", *parts)
    assert not (project.root / "data").exists()
    assert not (project.root / "outputs").exists()
    assert not (project.root / ".tracking").exists()


def test_an_unknown_variant(stage, fresh):
    told = stage(fresh, "pretrain", "--variant", "hybird")
    assert_refused(told, 2, "unknown variant 'hybird', did you mean 'hybrid'. params.yaml has: hybrid, contrastive.")


def test_dvc_passes_the_message_on(fresh, tmp_path):
    project = fresh.copy(tmp_path / "project")
    project.edit({"training.stepz": 5})
    done = project.dvc("repro", code=None)
    assert done.returncode != 0
    assert "error: params.yaml: training.stepz: unknown key, did you mean 'steps'" in done.stderr
    assert "exited with 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.root / "data").exists()


# data


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data.labelled": {"folder": "nowhere"}}, ["data.labelled.folder: nowhere is not a folder"]),
        ({"data.labelled": {"folder": "empty"}}, ["data.labelled.folder: empty is empty"]),
        ({"data.labelled": {"folder": "flat"}}, ["data.labelled: flat has no labels"]),
        ({"data.ood.same": {"distance": "far", "source": {"builtin": "digits"}}}, ["data.ood.same: ", "model knows"]),
        ({"training.batch_size": 5000}, ["1007 training images are fewer than one batch (training.batch_size: 5000)"]),
        ({"data.ood.held-out.held_out_classes": ["ten"]}, ["data.ood.held-out.held_out_classes: no class 'ten'"]),
    ],
    ids=str,
)
def test_data_that_cannot_be_prepared(stage, scratch, changes, parts):
    (scratch.root / "empty").mkdir()
    (scratch.root / "flat").mkdir()
    (scratch.root / "flat/image.png").write_bytes(b"not looked at")
    scratch.edit(changes)
    before = state(scratch)
    assert_refused(stage(scratch, "prepare"), 1, *parts)
    assert state(scratch) == before


def test_sources_that_are_not_there(stage, fresh, tmp_path):
    """Stage `sources` comes first, and says what `prepare` would say."""
    project = fresh.copy(tmp_path / "project")
    project.edit({"data.labelled": {"folder": "nowhere"}})
    told = stage(project, "sources")
    assert_refused(told, 1, "data.labelled.folder: nowhere is not a folder")
    assert stage(project, "prepare").err.endswith(told.err)
    assert not (project.root / "outputs").exists()


def test_a_full_disk(scratch):
    """Files may not grow beyond 32 KiB: train.npy, among others, does not fit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, 32 * 1024))

    before = state(scratch)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.stages", "prepare"],
        cwd=scratch.root,
        env=scratch.environment | {"PYTHONDONTWRITEBYTECODE": "1"},  # or cut bytecode would stay behind
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert done.returncode == 1
    mlflow, error = done.stderr.splitlines()  # the journal cannot be sent either
    assert mlflow.startswith("MLflow: ")
    assert "Nothing is lost" in mlflow
    assert error.startswith("error: data/prepared: could not be written, the disk is full")
    assert state(scratch) == before


def damage_duplicate(prepared: Path) -> None:
    """The first test image is the first training image again."""
    manifest = pq.read_table(prepared / "manifest.parquet")
    splits, hashes = manifest["split"].to_pylist(), manifest["sha256"].to_pylist()
    hashes[splits.index("test")] = hashes[splits.index("train")]
    column = manifest.schema.get_field_index("sha256")
    pq.write_table(manifest.set_column(column, "sha256", pa.array(hashes)), prepared / "manifest.parquet")


def damage_count(prepared: Path) -> None:
    np.save(prepared / "val.npy", np.load(prepared / "val.npy")[:-1])


def damage_class(prepared: Path) -> None:
    """A class has no validation image."""
    manifest = pq.read_table(prepared / "manifest.parquet")
    gone = pc.and_(pc.equal(manifest["split"], "val"), pc.equal(manifest["class_name"], "3"))
    pq.write_table(manifest.filter(pc.invert(gone)), prepared / "manifest.parquet")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (damage_duplicate, ["no picture is also in a split that must be apart", "split test, 1 rows", "digits#"]),
        (damage_count, ["manifest and array hold as many images", "expect_column_pair_values_to_be_equal"]),
        (damage_class, ["every class occurs", "split val"]),
    ],
)
def test_data_that_violates_an_expectation(stage, scratch, damage, parts):
    damage(scratch.root / "data/prepared")
    before = state(scratch)
    told = stage(scratch, "validate")
    assert_refused(told, 1, "data/prepared: the data set violates", "data/validation-failed/summary.md", *parts)
    after = state(scratch)
    assert {path for path in after if not path.startswith("data/validation-failed/")} == set(before)
    assert all(after[path] == before[path] for path in before)
    summary = json.loads((scratch.root / "data/validation-failed/summary.json").read_text())
    assert summary["success"] is False


# stages whose input is not there, or is another's


@pytest.mark.parametrize(
    ("name", "removed", "part"),
    [
        ("validate", "data/prepared", "Run `dvc repro prepare` first"),
        ("baselines", "data/prepared", "Run `dvc repro prepare` first"),
        ("pretrain", "data/prepared", "Run `dvc repro prepare` first"),
        ("embed", "outputs/hybrid/pretrain", "outputs/hybrid/pretrain/model.safetensors: no model weights here"),
        ("probe", "outputs/hybrid/embed", "outputs/hybrid/embed"),
        ("ood", "outputs/hybrid/probe", "outputs/hybrid/probe/probe.npz"),
        ("export", "outputs/hybrid/ood", "outputs/hybrid/ood/fused.npz"),
        ("report", "outputs/hybrid/export", "outputs/hybrid/export/results.json: not found"),
        ("compare", "outputs/reports/hybrid", "outputs/reports/hybrid/results.json: not found"),
    ],
)
def test_a_stage_before_its_input(stage, scratch, name, removed, part):
    shutil.rmtree(scratch.root / removed)
    before = state(scratch)
    alone = name in ("validate", "baselines", "compare")
    told = stage(scratch, name, *([] if alone else ["--variant", "hybrid"]))
    assert_refused(told, 1, part, "dvc repro")
    assert state(scratch) == before


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def objects(path):
    with path.open("wb") as file:
        np.save(file, np.array([{}, None], dtype=object), allow_pickle=True)


def without_its_arrays(path):
    with path.open("wb") as file:
        np.savez(file, other=np.zeros(3))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "file", "damage"),
    [
        ("validate", "data/prepared/manifest.parquet", cut),
        ("validate", "data/prepared/dataset.json", cut),
        ("baselines", "data/prepared/train.npy", objects),
        ("pretrain", "data/prepared/palette.npy", empty),
        ("embed", "data/prepared/test.npy", objects),
        ("probe", "outputs/hybrid/embed/test.features.npy", cut),
        ("probe", "outputs/hybrid/embed/layers/val.rows.npy", empty),
        ("ood", "outputs/hybrid/probe/probe.npz", without_its_arrays),
        ("ood", "outputs/hybrid/embed/val.bits_per_dim.npy", objects),
        ("export", "outputs/hybrid/ood/fused.npz", cut),
        ("export", "outputs/hybrid/ood/thresholds.json", empty),
        ("export", "outputs/hybrid/ood/results.json", cut),
        ("report", "outputs/hybrid/pretrain/curves.csv", empty),
        ("report", "outputs/hybrid/probe/record.json", cut),
        ("compare", "outputs/reports/hybrid/results.json", cut),
        ("compare", "outputs/reports/hybrid/roc.csv", without_its_arrays),
        ("compare", "outputs/reports/hybrid/hardest.parquet", cut),
    ],
)
def test_a_damaged_file_of_an_earlier_stage(stage, scratch, name, file, damage):
    damage(scratch.root / file)
    before = state(scratch)
    alone = name in ("validate", "baselines", "compare")
    told = stage(scratch, name, *([] if alone else ["--variant", "hybrid"]))
    assert_refused(told, 1, file, "dvc repro")
    assert state(scratch) == before


@pytest.mark.parametrize("place", [".tracking", "outputs/hybrid", ".scratch"])
def test_a_folder_that_cannot_be_written_to(stage, scratch, place):
    """Read-only for root, too: another file system."""
    folder = scratch.root / place
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder]
    if place == "outputs/hybrid":
        mount = ["mount", "--bind", "-o", "ro", folder, folder]
    made = subprocess.run(mount, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    try:
        told = stage(scratch, "probe", "--variant", "hybrid")
    finally:
        subprocess.run(["umount", folder], check=True)
    assert_refused(told, 1, place, "Read-only file system. It must be writable for this user.")


def test_weights_that_are_not_finite(stage, scratch):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = scratch.root / "outputs/hybrid/pretrain/model.safetensors"
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    name = next(name for name, value in weights.items() if value.is_floating_point() and value.ndim == 2)
    weights[name][0, 0] = float("nan")
    save_file(weights, path, metadata)
    before = state(scratch)
    for command in ("embed", "export"):
        told = stage(scratch, command, "--variant", "hybrid")
        assert_refused(told, 1, "outputs/hybrid/pretrain/model.safetensors: weights that are not finite", name)
    assert state(scratch) == before


def test_weights_of_another_architecture(stage, scratch):
    scratch.edit({"model.width": 32})
    before = state(scratch)
    told = stage(scratch, "embed", "--variant", "hybrid")
    assert_refused(told, 1, "weights of another architecture: model.width is 16, expected 32", "dvc repro")
    assert state(scratch) == before


def test_a_damaged_weights_file(stage, scratch):
    path = scratch.root / "outputs/hybrid/pretrain/model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    told = stage(scratch, "embed", "--variant", "hybrid")
    assert_refused(told, 1, "outputs/hybrid/pretrain/model.safetensors: not a weights file of this project")


def test_training_that_diverges(stage, scratch):
    scratch.edit({"training.learning_rate": 1e30, "training.gradient_clip": 1e30})
    before = state(scratch)
    told = stage(scratch, "pretrain", "--variant", "hybrid")
    assert told.code == 1
    (error,) = [line for line in told.err.splitlines() if line.startswith("error: ")]
    for part in ("step ", "not finite", "learning rate", "contrastive", "Lower training.learning_rate"):
        assert part in error
    assert "Traceback" not in told.err
    assert state(scratch) == before


@pytest.mark.parametrize(
    ("name", "code", "error"),
    [("probe", 1, "UserError: outputs/hybrid/embed"), ("pretrain", 2, "ConfigError: contrastive.clusters: 5000, but")],
)
def test_a_failed_stage_is_a_failed_run_in_mlflow(stage, scratch, name, code, error):
    from mlflow import MlflowClient

    shutil.rmtree(scratch.root / "outputs/hybrid/embed")
    scratch.edit({"variants.hybrid.contrastive": {"name": "deepcluster", "clusters": 5000}})
    assert stage(scratch, name, "--variant", "hybrid").code == code
    uri = os.environ["MLFLOW_TRACKING_URI"]  # of the fixture
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(ids, "attributes.status = 'FAILED'")
    assert run.data.tags["stage"] == name
    assert run.data.tags["error"].startswith(error)
    assert not list((scratch.root / ".tracking/journals").iterdir())
