"""The methods of a study side by side."""

import csv
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.errors import UserError
from pipelines.experiments.methods import methods_of, panels, write_methods

NUMBERS = {3: {"linear_accuracy": 0.5, "knn_accuracy": 0.4}, 4: {"linear_accuracy": 0.7}}


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    target = content.get("metrics", content)
    target |= changes
    path.write_text(json.dumps(content))


@pytest.fixture
def study(finished, tmp_path) -> Path:
    """The finished study with a second seed of the hybrid and other accuracies; `wide` knows a bound."""
    folder = Path(shutil.copytree(finished, tmp_path / "small", symlinks=True))
    hybrid = folder / "runs/hybrid"
    shutil.copytree(hybrid / "seed-3", hybrid / "seed-4", symlinks=True)
    edit(hybrid / "seed-4/settings.json", seed=4)
    for seed, numbers in NUMBERS.items():
        edit(hybrid / f"seed-{seed}/outputs/hybrid/probe/results.json", **numbers)
    wide = folder / "runs/wide/seed-3/outputs/wide"
    edit(wide / "probe/results.json", linear_accuracy=0.99)
    edit(wide / "pretrain/results.json", **{"val/bits_per_dim_bound": 2.5})
    return folder


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_one_row_a_method_the_best_first_and_what_nothing_was_learned_for_last(study):
    titles, _, *rows = (cells(line) for line in write_methods(study).split("\n\n")[0].splitlines())
    assert [row[:3] for row in rows] == [
        ["wide", "contrastive", "1"],
        ["hybrid", "hybrid", "2"],
        ["raw pixels", "baseline", "1"],
        ["untrained encoder", "baseline", "1"],
    ]
    wide, hybrid, pixels, _ = (dict(zip(titles, row, strict=True)) for row in rows)
    assert hybrid["linear probe"] == f"60.0% ± {100 * statistics.stdev([0.5, 0.7]):.1f}%"
    assert wide["bits/dim"] == "≤ 2.500"
    exact = json.loads((study / "runs/hybrid/seed-3/outputs/hybrid/embed/results.json").read_text())["metrics"]
    assert hybrid["bits/dim"] == f"{exact['bits_per_dim/test']:.3f} ± 0.000"
    assert pixels["bits/dim"] == pixels["near-OOD AUROC"] == "–"
    assert float(wide["effective rank"]) > 1
    assert (study / "methods.md").read_text() == write_methods(study)


def test_the_csv_holds_mean_and_deviation_with_the_bound_apart(study):
    write_methods(study)
    with (study / "methods.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    hybrid, wide = rows["hybrid"], rows["wide"]
    assert float(hybrid["linear_accuracy"]) == pytest.approx(0.6)
    assert float(hybrid["linear_accuracy_std"]) == pytest.approx(statistics.stdev([0.5, 0.7]))
    assert wide["linear_accuracy_std"] == ""
    assert (wide["bits_per_dim"], wide["bits_per_dim_bound"]) == ("", "2.5")
    assert hybrid["bits_per_dim_bound"] == ""


def test_the_figure_shows_accuracy_against_ood_detection_first(study):
    titles = [panel.title for panel in panels({method.name: method.numbers for method in methods_of(study)})]
    assert titles == ["linear probe", "near-OOD AUROC", "corrupted / clean accuracy", "bits/dim"]


def test_the_figure_is_drawn(study):
    write_methods(study)
    with Image.open(study / "methods.png") as image:
        assert len(image.convert("RGB").getcolors(2**24)) > 20


def test_a_method_that_has_not_been_evaluated_is_shown_with_what_there_is(study):
    shutil.rmtree(study / "runs/wide/seed-3/outputs/wide/ood")
    shutil.rmtree(study / "runs/wide/seed-3/outputs/wide/probe")
    (row,) = (cells(line) for line in write_methods(study).splitlines() if line.startswith("| wide"))
    assert row[3:5] == ["–", "–"]
    assert "≤ 2.500" in row


def test_before_the_first_probe_that_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no model there has been probed yet: `python -m pipelines.experiments run"):
        write_methods(tmp_path)
    assert not list(tmp_path.iterdir())
