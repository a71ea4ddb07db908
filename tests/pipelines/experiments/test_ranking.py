import csv
import math

import pytest
from PIL import Image

from components.plotting.methods import Panel
from pipelines.experiments import ranking
from pipelines.experiments.ranking import Result, draw_results, markdown, mean, rank, write_results


def result(variant: str, seed: int, rate: float, score: float, **numbers: float) -> Result:
    return Result(variant, seed, {"training.learning_rate": rate}, f"key-{seed}", {"score": score, **numbers})


RESULTS = [
    result("hybrid", 0, 0.01, 0.80, linear_accuracy=0.9, bits_per_dim=2.0),
    result("hybrid", 1, 0.01, 0.90, linear_accuracy=0.8, bits_per_dim=4.0),
    result("contrastive", 0, 0.01, 0.95, linear_accuracy=0.7),
    result("contrastive", 1, 0.01, 0.95, linear_accuracy=0.7),
    result("hybrid", 0, 0.02, 0.1),
]


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]


def test_mean_and_deviation_over_seeds_of_each_variant_and_point_best_first():
    head, *body = rows(markdown(RESULTS, {}))
    assert [(row[0], row[1], row[-1]) for row in body] == [
        ("contrastive", "0.01", "2"),
        ("hybrid", "0.01", "2"),
        ("hybrid", "0.02", "1"),
    ]
    found = dict(zip(head, body[1], strict=True))
    assert found["score"] == "0.8500 ± 0.0707"
    assert found["linear probe"] == "85.0% ± 7.1%"
    assert found["bits/dim"] == "3.000 ± 1.414"
    assert dict(zip(head, body[0], strict=True))["bits/dim"] == "–"
    assert dict(zip(head, body[2], strict=True))["score"] == "0.1000"  # one seed has no deviation
    assert math.isclose(mean(rank(RESULTS)[1], "score"), 0.85)


def test_failures_are_named_even_if_nothing_succeeded():
    table = markdown([], {"seed=1": "1 failed. pretrain@hybrid: no memory"})
    assert "- seed=1: 1 failed. pretrain@hybrid: no memory" in table
    assert len(rows(table)) == 1


def test_files(tmp_path):
    write_results(tmp_path / "sweep", RESULTS, "the table")
    assert (tmp_path / "sweep/ranking.md").read_text() == "the table"
    with (tmp_path / "sweep/results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 5
    assert lines[1]["seed"] == "1"
    assert lines[1]["training.learning_rate"] == "0.01"
    assert float(lines[1]["bits_per_dim"]) == 4.0
    assert lines[2]["bits_per_dim"] == ""
    assert lines[2]["run_key"] == "key-0"


def test_the_figure_has_a_row_for_each_variant_and_point(tmp_path, monkeypatch):
    drawn: list[tuple[dict[str, str], list[Panel]]] = []
    monkeypatch.setattr(ranking, "methods_figure", lambda kinds, panels, path: drawn.append((kinds, panels)))
    draw_results(RESULTS, {"hybrid": "hybrid", "contrastive": "contrastive"}, tmp_path / "ranking.png")
    ((kinds, panels),) = drawn
    assert kinds == {"contrastive, 0.01": "contrastive", "hybrid, 0.01": "hybrid", "hybrid, 0.02": "hybrid"}
    assert [panel.title for panel in panels] == ["linear probe", "bits/dim"]
    assert panels[0].values == {"contrastive, 0.01": (0.7, 0.0), "hybrid, 0.01": pytest.approx((0.85, 0.05 * 2**0.5))}
    assert panels[1].values == {"hybrid, 0.01": pytest.approx((3.0, 2**0.5))}


@pytest.mark.parametrize("results", [RESULTS, [result("student", 0, 0.01, 0.5, linear_accuracy=0.5)]])
def test_the_figure_is_drawn(tmp_path, results):
    kinds = {"hybrid": "hybrid", "contrastive": "contrastive", "student": "student"}
    draw_results(results, kinds, tmp_path / "ranking.png")
    with Image.open(tmp_path / "ranking.png") as image:
        assert len(image.convert("RGB").getcolors(2**24)) > 20


def test_messages_mean_nothing():
    table = markdown([], {"seed=1": "<b>no</b> `x` [a](b)\n| y |"})
    assert r"- seed=1: &lt;b&gt;no&lt;/b&gt; \`x\` \[a\](b)\\n\| y \|" in table.splitlines()
