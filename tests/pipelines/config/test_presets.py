import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from components.errors import ConfigError
from pipelines.__main__ import main
from pipelines.config import presets
from pipelines.config.params import load_params

ROOT = Path(__file__).parents[3]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the project's presets and, as params.yaml, the default one."""
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copyfile(tmp_path / "presets/digits-cpu.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_complete_and_says_what_it_costs_and_gives(path):
    params = load_params(path)
    assert params.variants
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert head.startswith(f"# {path.stem}: ")
    assert "# costs: " in head
    assert "# gives: " in head


def test_there_is_one_for_digits_and_one_for_cifar10():
    assert {"digits-cpu", "cifar10-cpu", "cifar10-gpu"} <= {path.stem for path in PRESETS}


def test_each_data_set_has_a_preset_with_pixel_tokens_for_comparison():
    for patches, pixels in (("digits-cpu", "digits-pixels-cpu"), ("cifar10-gpu", "cifar10-pixels-gpu")):
        one, other = (load_params(ROOT / f"presets/{name}.yaml") for name in (patches, pixels))
        assert (other.model.patch_size, other.model.likelihood) == (1, "palette")
        assert (one.data.labelled, one.data.ood, one.augmentation) == (
            other.data.labelled,
            other.data.ood,
            other.augmentation,
        )


def test_params_yaml_is_a_preset():
    """The committed params.yaml is the default preset, so that `make run PRESET=…` has no edits to refuse."""
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets/digits-cpu.yaml").read_bytes()


def test_use_replaces_an_unedited_preset_and_goes_back(project):
    assert presets.use("cifar10-gpu") == "params.yaml is preset cifar10-gpu now"
    assert (project / "params.yaml").read_bytes() == (project / "presets/cifar10-gpu.yaml").read_bytes()
    assert presets.use("cifar10-gpu") == "params.yaml is preset cifar10-gpu already"
    presets.use("digits-cpu")
    assert (project / "params.yaml").read_bytes() == (project / "presets/digits-cpu.yaml").read_bytes()


def test_use_where_there_is_no_params_yaml(project):
    (project / "params.yaml").unlink()
    presets.use("digits-cpu")
    assert load_params().data.image_size == 8


def test_edits_are_not_overwritten(project):
    with (project / "params.yaml").open("a") as file:
        file.write("# a thought of mine\n")
    edited = (project / "params.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"params.yaml holds edits of yours that preset cifar10-gpu would overwrite"):
        presets.use("cifar10-gpu")
    assert (project / "params.yaml").read_bytes() == edited
    # what the message proposes helps
    (project / "params.yaml").rename(project / "presets/mine.yaml")
    presets.use("cifar10-gpu")
    presets.use("mine")
    assert (project / "params.yaml").read_bytes() == edited
    (project / "presets/mine.yaml").unlink()
    (project / "params.yaml").unlink()
    presets.use("cifar10-gpu")


def test_an_unknown_preset_names_the_nearest(project, capsys):
    before = (project / "params.yaml").read_bytes()
    assert main(["preset", "cifar-gpu"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: unknown preset 'cifar-gpu', did you mean 'cifar10-gpu'. presets/ has: cifar10-cpu, ")
    assert (project / "params.yaml").read_bytes() == before


def test_an_invalid_preset_is_not_used(project, capsys):
    (project / "presets/mine.yaml").write_text("sead: 1\n")
    before = (project / "params.yaml").read_bytes()
    assert main(["preset", "mine"]) == 2
    assert "presets/mine.yaml: sead: unknown key, did you mean 'seed'" in capsys.readouterr().err
    assert (project / "params.yaml").read_bytes() == before


def test_the_command_says_what_it_did(project, capsys):
    assert main(["preset", "cifar10-gpu"]) == 0
    assert capsys.readouterr().out == "params.yaml is preset cifar10-gpu now\n"


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *PRESETS], ids=lambda path: path.stem)
def test_dvc_changes_the_one_line_of_a_setting(path, tmp_path):
    """`dvc exp run -S` writes params.yaml anew; comments, lists and long lines come out as they are here."""
    written = Path(shutil.copyfile(path, tmp_path / "params.yaml"))
    apply_overrides(written, ["seed=1"])
    assert written.read_text() == path.read_text().replace("\nseed: 0\n", "\nseed: 1\n")


def test_the_quick_preset_shows_what_own_images_would_do_with_the_same_images():
    full, quick = (load_params(ROOT / f"presets/{name}.yaml") for name in ("own-images", "own-images-quick"))
    assert (quick.data, quick.model, quick.augmentation) == (full.data, full.model, full.augmentation)
