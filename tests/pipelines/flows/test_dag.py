import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.errors import UserError
from pipelines.flows.dag import Meta, read_dag

ROOT = Path(__file__).parents[3]
DIAMOND = {
    "last": {"cmd": "cat left.out right.out > last.out", "deps": ["left.out", "right.out"]},
    "left": {"cmd": "cat first.out > left.out", "deps": ["first.out"], "meta": {"gpu": True, "retries": 2}},
    "right": {"cmd": "cat first.out > right.out", "deps": ["first.out"]},
    "first": {"cmd": "echo 1 > first.out"},
}


def test_stages_stand_behind_their_upstreams(project):
    dag = read_dag(project(DIAMOND))
    assert {name: stage.upstreams for name, stage in dag.stages.items()} == {
        "first": (),
        "left": ("first",),
        "right": ("first",),
        "last": ("left", "right"),
    }
    places = list(dag.stages)
    assert places[0] == "first"
    assert places[-1] == "last"
    assert dag.stages["left"].meta == Meta(gpu=True, retries=2)
    assert dag.stages["right"].meta == Meta()
    assert all(stage.changed for stage in dag.stages.values())


def test_targets_bring_their_upstreams_and_no_more(project):
    root = project(DIAMOND)
    assert set(read_dag(root, ["left"]).stages) == {"first", "left"}
    assert set(read_dag(root, ["left", "right"]).stages) == {"first", "left", "right"}
    assert read_dag(root, []).stages == {}


def test_from_a_folder_below(project):
    root = project(DIAMOND)
    (root / "below").mkdir()
    dag = read_dag(root / "below")
    assert dag.root == root
    assert set(dag.stages) == set(DIAMOND)


def test_this_projects_own_dag(tmp_path, project):
    root = project({})
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copyfile(ROOT / name, root / name)
    variants = YAML(typ="safe").load(root / "params.yaml")["variants"]
    stages = read_dag(root).stages
    assert stages["validate"].upstreams == ("prepare",)
    for variant in variants:
        assert stages[f"probe@{variant}"].upstreams == (f"embed@{variant}", "prepare")
        assert stages[f"pretrain@{variant}"].meta.gpu
    assert set(stages["compare"].upstreams) == {"prepare", "baselines", *(f"report@{variant}" for variant in variants)}
    group = read_dag(root, ["pretrain"]).stages
    assert set(group) == {"sources", "prepare", "validate", *(f"pretrain@{variant}" for variant in variants)}


@pytest.mark.parametrize(
    ("stages", "targets", "told"),
    [
        (DIAMOND, ["rihgt"], ["targets", "'rihgt'", "did you mean 'right'", "first, last, left, right"]),
        ({"a": {"cmd": "true", "meta": {"retry": 2}}}, None, ["dvc.yaml", "meta of a", "retry", "retries"]),
        ({"a": {"cmd": "true", "meta": {"retries": -1}}}, None, ["dvc.yaml", "meta of a", "retries"]),
        ({"a": {"cmd": "true", "dep": ["x"]}}, None, ["dvc.yaml", "dep"]),
    ],
)
def test_mistakes_are_named(project, stages, targets, told):
    root = project(stages)
    with pytest.raises(UserError) as error:
        read_dag(root, targets)
    assert all(word in str(error.value) for word in told), error.value


def test_no_repository(tmp_path):
    with pytest.raises(UserError, match="not inside of a DVC repository"):
        read_dag(tmp_path)
