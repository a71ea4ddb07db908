import itertools
import logging
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.config import Config
from ruamel.yaml import YAML

from components.errors import UserError
from pipelines.config.params import load_params
from pipelines.flows import workspace as module
from pipelines.flows.workspace import workspace
from pipelines.tracking import store
from pipelines.tracking.journal import tracking_folder

ONE = {"one": {"cmd": "echo 1 > one.out"}}


@pytest.fixture
def root(committed) -> Path:
    return committed(ONE)


def files(root: Path) -> dict[str, bytes]:
    """All that a person sees; DVC's tmp aside."""
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith((".git/", ".dvc/tmp/"))}


def change(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_it_is_the_last_commit_with_other_parameters(root):
    before = files(root)
    with workspace(root, overrides={"training.steps": 70, "variants.big": {"w_gen": 1, "w_con": 2.5}}) as place:
        assert place.folder.is_relative_to(root / ".dvc" / "tmp" / "workspaces")
        assert "training.steps=70" in place.folder.name
        assert place.params == load_params(place.folder / "params.yaml")
        assert place.params.training.steps == 70
        assert place.params.variant("big").w_con == 2.5
        changed = {name for name, content in files(place.folder).items() if content != before.get(name)}
        assert changed == {"params.yaml", ".dvc/config.local"}
        assert (place.folder / "params.yaml").read_text().startswith("# digits-cpu: scikit-learn's")
    assert files(root) == before


def test_a_preset(root):
    with workspace(root, "cifar10-gpu", {"seed": 3}) as place:
        expected = replace(load_params(root / "presets" / "cifar10-gpu.yaml"), seed=3)
        assert place.params == expected
    with workspace(root, "cifar10-gpu") as other:
        assert other.folder != place.folder
        assert other.params.seed == 0
        assert (other.folder / "params.yaml").read_bytes() == (root / "presets/cifar10-gpu.yaml").read_bytes()


def test_a_preset_that_is_not_committed(root):
    shutil.copyfile(root / "presets/cifar10-gpu.yaml", root / "presets/mine.yaml")
    with pytest.raises(UserError, match=r"presets/mine\.yaml is not committed"), workspace(root, "mine"):
        pass


def test_the_same_settings_give_the_same_workspace_with_what_was_left_in_it(root, commit):
    with workspace(root, overrides={"seed": 1}) as place:
        change(place.folder, "data/resume", "half of a training")
        change(place.folder, "left.py", "no longer code")
    change(root, "code.py", "new")
    (root / "dvc.yaml").rename(root / "elsewhere.yaml")
    commit(root)
    with workspace(root, overrides={"seed": 1}) as again:
        assert again.folder == place.folder
        assert (again.folder / "data/resume").read_text() == "half of a training"
        assert (again.folder / "code.py").read_text() == "new"
        assert not (again.folder / "dvc.yaml").exists()
        assert not (again.folder / "left.py").exists()
        assert again.params.seed == 1
    shutil.rmtree(again.folder)
    with workspace(root, overrides={"seed": 1}) as third:
        assert not (third.folder / "data/resume").exists()
        assert (third.folder / "code.py").exists()


def test_it_keeps_its_own_dvc_lock_until_the_project_commits_another(root, commit):
    change(root, "dvc.lock", "schema: '2.0'\nstages: {}\n")
    commit(root)
    with workspace(root) as place:
        assert (place.folder / "dvc.lock").read_text() == "schema: '2.0'\nstages: {}\n"
        change(place.folder, "dvc.lock", "schema: '2.0'\nstages: {own: {cmd: x}}\n")
    change(root, "code.py", "new")
    commit(root)
    with workspace(root):
        assert "own" in (place.folder / "dvc.lock").read_text()
    change(root, "dvc.lock", "schema: '2.0'\nstages: {theirs: {cmd: x}}\n")
    commit(root)
    with workspace(root):
        assert "theirs" in (place.folder / "dvc.lock").read_text()


def test_two_runs_never_share_one(root):
    with workspace(root, overrides={"seed": 1}) as place:
        with pytest.raises(UserError) as told, workspace(root, overrides={"seed": 1}):
            pass
        assert str(told.value).startswith(f"{place.folder}: in use by process {os.getpid()} (")
        with workspace(root, overrides={"seed": 2}) as other:
            assert other.folder != place.folder
    with workspace(root, overrides={"seed": 1}):
        pass


@pytest.mark.parametrize(
    ("preset", "overrides", "told"),
    [
        (None, {"training.step": 3}, "training.step: unknown key, did you mean 'steps'"),
        (None, {"trainin.steps": 3}, "trainin: unknown key, did you mean 'training'"),
        (None, {"variants.hybird.w_con": 3}, "variants.hybird.w_con: unknown section 'hybird', did you mean 'hybrid'"),
        (None, {"students.small.kd.weight": 1}, "students.small.teacher: missing; this key is required."),
        (
            None,
            {"variants.hybrid.contrastive.tmperature": 3},
            "tmperature: unknown key, did you mean 'temp",
        ),
        (None, {"training.steps.x": 3}, "training.steps.x: training.steps is a value (400), no section with keys."),
        (None, {"training.steps": "3"}, "training.steps: "),
        (None, {"training.steps": None}, "training.steps: "),
        (None, {"variants.big": {"w_gen": 1}}, "variants.big.w_con: missing"),
        (None, {"model.patch_size": 3}, "model.patch_size: 3 does not divide data.image_size (8)"),
        ("cifar10-gpus", None, "unknown preset 'cifar10-gpus', did you mean 'cifar10-gpu'"),
    ],
)
def test_mistakes_are_told_in_one_message_and_leave_no_workspace(root, preset, overrides, told):
    with pytest.raises(UserError) as error, workspace(root, preset, overrides):
        pass
    assert told in str(error.value)
    assert [path for path in (root / module.PLACE).iterdir() if path.is_dir()] == []


def test_a_section_that_is_null_so_far_may_be_filled(root):
    with workspace(root, overrides={"data.pretrain.folder": "/images"}) as place:
        assert place.params.data.pretrain is not None
        assert place.params.data.pretrain.folder == "/images"


def test_without_a_commit_it_says_what_to_do(project, tmp_path):
    root = project(ONE)
    with pytest.raises(UserError, match=r"clone of the last commit, and .*git init"), workspace(root):
        pass
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    with pytest.raises(UserError, match="has no commit yet"), workspace(root):
        pass
    with pytest.raises(UserError, match="not a DVC project"), workspace(tmp_path):
        pass


def test_a_repository_that_git_refuses_is_told_in_gits_words(project):
    root = project(ONE)
    (root / ".git").write_text("gitdir: nowhere\n")
    with pytest.raises(UserError, match=r"not a git repository: .*nowhere") as refused, workspace(root):
        pass
    assert "git init" not in str(refused.value)


def test_image_sets_that_are_not_in_git_are_reached_under_the_same_names(root, commit):
    for name in ("data/own/a.png", "inside/b.png", "sets/1.parquet", "sets/2.parquet"):
        change(root, name, name)
    change(root, ".gitignore", "*.out\n/data/\n/sets/\n")
    commit(root)
    overrides = {
        "data.labelled": {"folder": "data/own"},
        "data.pretrain": {"folder": "inside"},
        "data.test": {"parquet": ["sets/*.parquet", "data/own/a.png"]},
        "data.ood.photo-patches.source": {"torchvision": "SVHN", "download": False},
    }
    for _ in range(2):
        with workspace(root, overrides=overrides) as place:
            assert (place.folder / "data/own").readlink() == root / "data/own"
            assert not (place.folder / "inside").is_symlink()
            assert {path.name for path in (place.folder / "sets").iterdir()} == {"1.parquet", "2.parquet"}
            assert (place.folder / "sets/1.parquet").read_text() == "sets/1.parquet"
            assert (place.folder / "data/raw").resolve() == root / "data/raw"
            change(place.folder, "data/prepared/train.npy", "the run's own")
            assert not (root / "data/prepared").exists()
    assert not (root / "data/own/a.png").is_symlink()
    with (
        pytest.raises(UserError, match=r"data.labelled.folder: \.\./images leads out of the project"),
        workspace(root, overrides={"data.labelled": {"folder": "../images"}}),
    ):
        pass


def test_cache_and_remotes_are_the_projects(root, commit, tmp_path):
    near = "['remote \"near\"']\n    url = ../../near\n"
    change(root, ".dvc/config", f"[core]\n    no_scm = true\n    remote = near\n{near}")
    commit(root)
    change(root, ".dvc/config.local", "['remote \"far\"']\n    url = s3://bucket\n    secret_access_key = hidden\n")
    for _ in range(2):
        with workspace(root) as place:
            config = Config(str(place.folder / ".dvc"))
            assert config["remote"]["near"]["url"] == str(tmp_path / "near")
            assert config["remote"]["far"]["secret_access_key"] == "hidden"
            assert config["core"]["remote"] == "near"
            assert config["cache"]["dir"] == str(root / ".dvc" / "cache")


def test_journals_and_the_default_store_are_the_projects(root, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with workspace(root) as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(place.folder)
        monkeypatch.setenv("DVC_ROOT", str(place.folder))
        assert tracking_folder() == root / ".tracking"
        assert store.default_uri(tracking_folder()) == f"sqlite:///{root / 'mlruns' / 'mlflow.db'}"


def test_a_relative_store_is_meant_from_where_the_flow_runs(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///some.db")
    with workspace(root) as place:
        assert place.environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'some.db'}"


def test_a_project_inside_a_larger_repository(root, commit, tmp_path):
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    shutil.rmtree(root / ".git")
    change(tmp_path, "another-project/code.py", "theirs")
    commit(tmp_path)
    with workspace(root) as place:
        assert place.folder.name == "project"
        assert (place.folder / "dvc.yaml").exists()
        assert (place.folder.parent / "another-project/code.py").exists()


def test_uncommitted_changes_are_named_and_are_not_in_it(root, caplog):
    change(root, "dvc.yaml", "stages: {}\n")
    change(root, "new.py", "not tracked")
    change(root, "dvc.lock", "what is cached, no setting")
    logger = logging.getLogger("prefect.workspace")
    logger.addHandler(caplog.handler)
    try:
        with workspace(root) as place:
            assert YAML(typ="safe").load(place.folder / "dvc.yaml")["stages"].keys() == {"one"}
    finally:
        logger.removeHandler(caplog.handler)
    told = {record.getMessage() for record in caplog.records}
    assert told == {"Not in this run, because not committed: changes in dvc.yaml"}


def damage_index(clone: Path) -> None:
    (clone / ".git/index.lock").touch()
    (clone / "dvc.yaml").unlink()


def damage_head(clone: Path) -> None:
    (clone / ".git/HEAD").write_text("")


def damage_objects(clone: Path) -> None:
    shutil.rmtree(clone / ".git/objects")


def damage_dvc_lock(clone: Path) -> None:
    (clone / "dvc.lock").write_text("schema: '2.0'\nstages: {one: {cmd")


def damage_config(clone: Path) -> None:
    (clone / ".dvc/config.local").write_text("[cache\n dir")


@pytest.mark.parametrize("damage", [damage_index, damage_head, damage_objects, damage_dvc_lock, damage_config])
def test_what_a_killed_command_left_is_repaired(root, commit, damage):
    change(root, "dvc.lock", "schema: '2.0'\nstages: {}\n")
    commit(root)
    with workspace(root) as place:
        change(place.folder, "data/resume", "half of a training")
    damage(place.folder)
    with workspace(root):
        status = subprocess.run(["git", "status", "--porcelain"], cwd=place.folder, capture_output=True, text=True)
        assert status.stdout + status.stderr == ""
        assert (place.folder / "data/resume").exists()
        assert Config(str(place.folder / ".dvc"))["cache"]["dir"] == str(root / ".dvc" / "cache")


def test_a_run_killed_between_any_two_commands_does_not_matter(root, monkeypatch):
    git = module.git
    for steps in itertools.count():
        left = iter(range(steps))

        def killed(*arguments, left=left, **options):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return git(*arguments, **options)

        monkeypatch.setattr(module, "git", killed)
        try:
            with workspace(root, overrides={"seed": 1}):
                pass
        except KeyboardInterrupt:
            pass
        else:
            break
        monkeypatch.setattr(module, "git", git)
        with workspace(root, overrides={"seed": 1}) as place:
            assert load_params(place.folder / "params.yaml").seed == 1
            assert (place.folder / "dvc.yaml").read_bytes() == (root / "dvc.yaml").read_bytes()
        shutil.rmtree(place.folder)
    assert steps > 8
