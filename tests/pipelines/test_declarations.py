"""A detector, a metric and a stage that are declared outside of the project are found wherever its own are."""

import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.text import Text
from ruamel.yaml import YAML

from components.evaluation.ood import detectors, registry
from components.plotting import style
from components.plotting.ood import lines_of
from pipelines import stages
from pipelines.config.params import Params, load_params
from pipelines.metrics import METRICS, UNSEEN, Metric
from pipelines.paths import reserved
from pipelines.stages.__main__ import main
from pipelines.stages.registry import reported
from pipelines.stages.results import constants_of, metrics_of, record_of
from pipelines.tracking.views import VIEWS, View

DETECTOR = """
from components.evaluation.ood.base import Detector

class Brightness:
    def score(self, batch):
        return batch.images.mean(axis=(1, 2, 3))

DETECTOR = Detector(
    fit=lambda data, k: Brightness(),
    family="features",
    meaning="how bright the image is",
    source="a test",
    default=True,
)
"""
TALLY = """
from components.evaluation.features.store import Embedded
from pipelines.paths import stage_folder
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import stage_run

STAGE = Stage(does="counting the images", per="encoder", after=("embed",), in_report="numbers")

def run(params, variant):
    with stage_run(params, "tally", variant) as stage, stage.folder() as out:
        out.metrics = {"images": len(Embedded.open(stage_folder("embed", variant)).features("test"))}
"""
METRIC = Metric(
    "brightness_auroc",
    "AUROC by brightness",
    *("ood", "brightness/mean/auroc", ".3f", True, UNSEEN),
    "Chance that a foreign image is brighter than a usual one.",
)
PARAMS: dict[str, Any] = {
    "seed": 0,
    "data": {
        **{"image_size": 8, "channels": 1, "labelled": {"builtin": "digits", "limit": 400}},
        "ood": {"shuffled": {"distance": "far", "shuffled_test": True}},
    },
    "model": {"patch_size": 2, "width": 16, "heads": 2, "encoder_layers": 1, "projection_width": 16},
    "augmentation": {"translate": 0.1},
    "training": {"steps": 2, "batch_size": 32, "learning_rate": 0.001, "warmup_steps": 1, "device": "cpu"},
    "variants": {"contrastive": {"w_gen": 0.0, "w_con": 1.0}},
    "students": {},
    "embed": {"layer_images": 0},
    "probe": {"l2": [0.01], "k": [5], "shots": [1], "draws": 1},
    "ood": {"detectors": ["brightness", "fused"], "bootstrap": 10},
    "export": {},
    "gate": {"score": ["linear_accuracy", "brightness_auroc"]},
    "tracking": {},
}


@dataclass(frozen=True)
class Project:
    """A folder in which the stages have run."""

    params: Params
    folder: Path
    figures: dict[str, set[str]]  # name of a figure's file → all texts in it


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """The detector `brightness`, the stage `tally` and the metric METRIC, as if they were the project's."""
    outside = tmp_path_factory.mktemp("outside")
    for name, text in (("detectors/brightness", DETECTOR), ("stages/tally", TALLY)):
        (outside / name).parent.mkdir()
        (outside / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "__path__", [*detectors.__path__, str(outside / "detectors")])
        patch.setattr(stages, "__path__", [*stages.__path__, str(outside / "stages")])
        patch.setitem(METRICS, METRIC.name, METRIC)
        importlib.invalidate_caches()
        yield patch
    sys.modules.pop(f"{detectors.__name__}.brightness", None)
    sys.modules.pop(f"{stages.__name__}.tally", None)


@pytest.fixture(scope="module")
def project(declared: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    declared.chdir(folder)
    declared.setenv("PIPELINE_OFFLINE", "1")
    YAML().dump(PARAMS, folder / "params.yaml")
    figures: dict[str, set[str]] = defaultdict(set)
    drawn = style.figure

    @contextmanager
    def figure(path: Path, width: float, height: float) -> Iterator[Any]:
        with drawn(path, width, height) as canvas:
            yield canvas
            figures[Path(path).name] |= {text.get_text() for text in canvas.findobj(Text)}

    declared.setattr(style, "figure", figure)
    params = load_params()
    for stage in ("prepare", "baselines"):
        importlib.import_module(f"pipelines.stages.{stage}").run(params)
    for variant in params.variants:
        for stage in reported():
            assert main([stage, "--variant", variant]) == 0
        importlib.import_module("pipelines.stages.report").run(params, variant, whole=False)
    importlib.import_module("pipelines.stages.compare").run(params)
    return Project(params, folder, figures)


def test_the_configuration_knows_the_detector_and_the_metric(project):
    assert project.params.ood.detectors == ("brightness", "fused")
    assert project.params.gate.score == ("linear_accuracy", "brightness_auroc")
    assert "brightness" in registry.chosen(())  # it is on by default
    assert "brightness" in registry.chosen(("all",))


def test_the_detector_is_in_the_results_and_tables_of_the_run(project):
    metrics = metrics_of("ood", "contrastive")
    assert {"brightness/threshold", "brightness/shuffled/auroc", "brightness/shuffled/flagged"} <= set(metrics)
    assert metrics["brightness/mean/auroc"] == 0.5  # shuffled pixels are as bright as they were
    assert constants_of("ood", "contrastive")["detectors"] == ["brightness", "fused"]
    folder = project.folder / "outputs/contrastive/ood"
    assert np.isfinite(pq.read_table(folder / "scores.parquet")["brightness"].to_numpy()).all()
    assert "\n| brightness | " in (folder / "openood.md").read_text()
    assert "| brightness | features | – | yes | how bright the image is | a test |" in registry.table()


def test_the_detector_has_its_line_in_the_figures(project):
    assert "0.500  brightness" in project.figures["roc.png"]
    assert "brightness" in project.figures["auroc.png"]
    lines = lines_of(["brightness", "fused"])
    assert lines["brightness"].dashes == lines_of(["knn"])["knn"].dashes  # which looks at features, too
    assert lines["brightness"].colour in style.NAMED.values()


def test_the_metric_is_in_table_figure_and_results_of_the_comparison(project):
    compare = project.folder / "outputs/compare"
    assert json.loads((compare / "metrics.json").read_text())["contrastive"]["brightness_auroc"] == 0.5
    titles = (compare / "comparison.md").read_text().splitlines()[2]
    assert "| AUROC by brightness |" in titles
    assert "AUROC by brightness ↑" in project.figures["comparison.png"]
    assert metrics_of("report", "contrastive")["score"] == pytest.approx(
        (metrics_of("probe", "contrastive")["linear_accuracy"] + 0.5) / 2
    )


def test_the_command_knows_the_stage(declared, capsys):
    with pytest.raises(SystemExit):
        main(["tally"])
    assert "stage tally needs --variant" in capsys.readouterr().err


def test_the_stage_stands_behind_what_it_reads(declared):
    own = reported()
    assert own.index("embed") < own.index("tally") < own.index("export")
    assert "tally" not in reserved()  # it has no folder beside the variants'


def test_the_report_has_the_numbers_of_the_stage_and_its_run(project):
    (journal,) = (project.folder / ".tracking/journals").glob("*report*/events.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {"tally/images": metrics_of("tally", "contrastive")["images"]} in [event.get("values") for event in events]
    (nested,) = (event["children"] for event in events if event["event"] == "nest")
    assert record_of("tally", "contrastive")["run_key"] in nested


def test_all_are_on_the_report_page(project):
    page = (project.folder / "outputs/compare/report.html").read_text()
    for told in ("how bright the image is", METRIC.title, METRIC.meaning, "tally contrastive", "counting the images"):
        assert told in page


def test_mlflows_views_have_a_column_of_the_metric(declared):
    for view in VIEWS:
        fresh = View(*(getattr(view, field.name) for field in fields(View)))  # whose value has not been asked for
        assert "metrics.`brightness_auroc`" in fresh.value
