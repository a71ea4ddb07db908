import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from components.evaluation.ood import registry
from components.evaluation.ood.metrics import auroc
from components.evaluation.ood.plot_data import write_roc
from components.evaluation.probes.calibration import reliability
from components.evaluation.probes.plot_data import write_confusion, write_reliability
from components.plotting import ood as figures_ood
from components.plotting import probes as figures_probe

RNG = np.random.default_rng(0)
DETECTORS = registry.names()
DISTANCES = {"held-out": "near", "patches": "far", "noise": "far", "other": "far"}
SCORES = {"test": RNG.gamma(2, size=300)} | {name: RNG.gamma(2, size=80) * 3**i for i, name in enumerate(DISTANCES)}
INTERVALS = {f"{detector}/threshold": 1.0 for detector in DETECTORS} | {
    f"{detector}/{name}/auroc{end}": value
    for detector in DETECTORS
    for name in DISTANCES
    for end, value in (("_low", 0.6), ("", 0.7), ("_high", 0.8))
}
BINS = reliability(RNG.dirichlet(np.ones(4), 200), RNG.integers(4, size=200), 15)
CONFUSION = np.array([[5, 1, 0], [0, 3, 0], [2, 0, 4]])


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: figures_probe.confusion_matrix(CONFUSION, ["cat", "dog", "emu"], path),
        lambda path: figures_probe.confusion_matrix(np.eye(25, dtype=int), [f"class {i}" for i in range(25)], path),
        lambda path: figures_probe.reliability_diagram(BINS, BINS, path),
        lambda path: figures_probe.few_label_curve(
            {"hybrid": {1: RNG.random(3), 5: RNG.random(3)}, "pixels": {1: RNG.random(1)}}, {"hybrid": 0.9}, path
        ),
        lambda path: figures_probe.few_label_curve({"hybrid": {}}, {"hybrid": 0.9}, path),
        lambda path: figures_ood.roc_curves(dict.fromkeys(DETECTORS, SCORES), DISTANCES, path),
        lambda path: figures_ood.auroc_intervals(INTERVALS, DISTANCES, path),
        lambda path: figures_ood.score_histograms(SCORES, 4.0, DISTANCES, path),
        lambda path: figures_ood.score_histograms(
            {"test": np.ones(4), "held-out": np.ones(3)}, 1, {"held-out": "near"}, path
        ),
    ],
    ids=[
        "confusion",
        "many classes",
        "reliability",
        "few-label",
        "no few labels",
        "roc",
        "intervals",
        "histograms",
        "all equal",
    ],
)
def test_a_figure_is_a_legible_png(draw, tmp_path):
    draw(tmp_path / "figure.png")
    image = Image.open(tmp_path / "figure.png")
    assert image.format == "PNG"
    assert min(image.size) >= 300
    assert len(image.convert("RGB").getcolors(image.width * image.height)) > 10  # something was drawn
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_every_detector_has_a_line_of_its_own_and_a_lost_one_has_one_too():
    lines = figures_ood.lines_of([*DETECTORS, "gone"])
    assert set(lines) == {*DETECTORS, "gone"}
    assert len({(line.colour, line.dashes) for line in lines.values()}) == len(lines)


def test_importing_evaluation_imports_no_heavy_library():
    code = (
        "import sys; from components.plotting import ood, probes, robustness, training;"
        "from components.evaluation.features import store;"
        "from components.evaluation.ood import openood, run; from components.evaluation.probes import run;"
        "from components.evaluation.robustness import measure;"
        "print([name for name in ('matplotlib', 'sklearn', 'scipy', 'torch', 'PIL') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_confusion_rows_count_to_the_matrix(tmp_path):
    classes = ["cat", "dog", "emu"]
    write_confusion(tmp_path / "confusion.csv", CONFUSION, classes)
    rebuilt = np.zeros((3, 3), int)
    for row in rows_of(tmp_path / "confusion.csv"):
        rebuilt[classes.index(row["actual"]), classes.index(row["predicted"])] += 1
    np.testing.assert_array_equal(rebuilt, CONFUSION)


def test_reliability_rows_give_the_calibration_error(tmp_path):
    write_reliability(tmp_path / "reliability.csv", BINS)
    rows = rows_of(tmp_path / "reliability.csv")
    assert all(float(row["count"]) > 0 for row in rows)
    gaps = [float(row["count"]) * abs(float(row["accuracy"]) - float(row["confidence"])) for row in rows]
    assert sum(gaps) / 200 == pytest.approx(BINS.expected_calibration_error, abs=1e-5)


def test_roc_rows_have_the_area(tmp_path):
    write_roc(tmp_path / "roc.csv", SCORES, list(DISTANCES))
    rows = rows_of(tmp_path / "roc.csv")
    assert list(rows[0]) == ["false_positive_rate", "mean", *DISTANCES]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    areas = {name: np.trapezoid(columns[name], columns["false_positive_rate"]) for name in DISTANCES}
    for name, area in areas.items():
        assert area == pytest.approx(auroc(SCORES["test"], SCORES[name]), abs=0.01)
    np.testing.assert_allclose(columns["mean"], np.mean([columns[name] for name in DISTANCES], axis=0), atol=1e-5)
