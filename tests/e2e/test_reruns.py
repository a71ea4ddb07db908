"""What a change reruns, and no more. DVC says it without running: downstream of a change, everything might run."""

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.stages.registry import reported

pytestmark = pytest.mark.e2e

STAGES = (*reported(), "report")
REPORT = ("report", "hybrid")


def affected(project) -> set[str]:
    """Stages that would run or, if what they read changes, may run: as `pretrain@hybrid`."""
    project.dvc("freeze", "sources")  # it runs every time; here no image comes or goes
    said = project.dvc("repro", "--dry", "--force-downstream").stdout
    commands = re.findall(r"^> python -m pipelines\.stages (\S+)(?: --variant (\S+))?$", said, re.MULTILINE)
    return {"@".join(filter(None, command)) for command in commands}


def changed(project) -> set[str]:
    """Stages that DVC knows to have changed."""
    return set(re.findall(r"^(\w+(?:@\w+)?):$", project.dvc("status").stdout, re.MULTILINE))


def of_each(*stages: str) -> set[str]:
    return {f"{stage}@{variant}" for stage in stages for variant in ("hybrid", "contrastive")}


def touch(project, file: str) -> None:
    with (project.root / file).open("a") as code:
        code.write("# a comment more\n")


def first_of(value: object) -> str:
    """A case's name: what is changed. The order of a set differs from process to process."""
    return "" if isinstance(value, set) else str(value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"probe.draws": 2}, {"baselines", "compare"} | of_each("probe", "ood", "export", "report")),
        ({"embed.corruptions": ["contrast"]}, {"compare"} | of_each(*STAGES) - of_each("pretrain")),
        ({"ood.bootstrap": 60}, {"compare"} | of_each("ood", "export", "report")),
        ({"export.tolerance": 0.01}, {"compare"} | of_each("export", "report")),
        ({"gate.minimum": {"linear_accuracy": 0.9}}, {"compare"}),
        ({"gate.score": ["knn_accuracy"]}, {"compare"} | of_each("report")),
        ({"training.learning_rate": 0.001}, {"compare"} | of_each(*STAGES)),
        ({"augmentation.flip": True}, {"compare"} | of_each(*STAGES)),
        ({"variants.contrastive.w_con": 2.0}, {"compare"} | {f"{stage}@contrastive" for stage in STAGES}),
        ({"variants.generative": {"w_gen": 1.0, "w_con": 0.0}}, {"compare"} | {f"{s}@generative" for s in STAGES}),
        ({"variants.contrastive": None}, {"compare"}),
        ({"certificate": {"contrastive": {"split": "test"}}}, {"certificate@contrastive"}),
        ({"data.val_fraction": 0.2}, {"prepare", "validate", "baselines", "compare"} | of_each(*STAGES)),
    ],
    ids=first_of,
)
def test_a_parameter(scratch, changes, expected):
    scratch.edit(changes)
    if "variants.generative" in changes:
        scratch.dvc("repro", "sources")  # it tells which weights a new variant starts from
    assert affected(scratch) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("components/export/card.py", {"compare"} | of_each("export", "report")),
        ("components/plotting/ood.py", {"compare"} | of_each("report")),
        ("components/evaluation/features/store.py", {"compare"} | of_each(*STAGES) - of_each("pretrain")),
        ("components/objectives/contrastive/nt_xent/term.py", {"compare"} | of_each(*STAGES)),
        ("components/data/sources/open.py", {"prepare", "validate", "baselines", "compare"} | of_each(*STAGES)),
        ("pipelines/stages/compare.py", {"compare"}),
        ("pipelines/tracking/uploader.py", set()),
        ("components/files.py", set()),
    ],
    ids=first_of,
)
def test_code(scratch, file, expected):
    touch(scratch, file)
    assert affected(scratch) == expected


def test_a_third_variant_leaves_the_results_of_the_others(scratch):
    """Not only may the others' stages stay: DVC sees no change in any of them."""
    scratch.edit({"variants.generative": {"w_gen": 1.0, "w_con": 0.0}})
    assert changed(scratch) == {"sources", "compare"} | {f"{stage}@generative" for stage in STAGES}


def test_preparing_the_same_images_again_reruns_nothing_else(scratch):
    """As on another machine, where a copy of the images has other times."""
    before = scratch.files("outputs/prepare")
    scratch.dvc("repro", "--single-item", "--force", "prepare")
    assert scratch.files("outputs/prepare") != before  # its record tells when
    assert changed(scratch) == {"sources"}


def test_another_colour_is_drawn_and_nothing_else(scratch):
    style, figure = scratch.root / "components/plotting/style.py", "figures/ood/scores.png"
    style.write_text(style.read_text().replace("#0072B2", "#0000FF"))
    client = MlflowClient(scratch.uri)
    experiment = [client.get_experiment_by_name("throw-away").experiment_id]
    runs = {run.info.run_id: run for run in client.search_runs(experiment)}
    versions = len(client.search_model_versions("name = 'gcrl'"))
    (model,) = (run for run in runs.values() if (run.data.tags["stage"], run.data.tags.get("variant")) == REPORT)
    before = Path(client.download_artifacts(model.info.run_id, figure)).read_bytes()
    ran = re.findall("Running stage '(.+)'", scratch.dvc("repro").stdout)
    assert set(ran) == {"sources", "compare"} | of_each("report")
    assert {run.info.run_id for run in client.search_runs(experiment)} == set(runs)
    assert len(client.search_model_versions("name = 'gcrl'")) == versions
    drawn = (scratch.root / "outputs/reports/hybrid" / figure).read_bytes()
    assert Path(client.download_artifacts(model.info.run_id, figure)).read_bytes() == drawn != before
