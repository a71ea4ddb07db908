"""One `dvc repro`: what it writes, what it says, and that a second one has nothing to do."""

import csv
import fnmatch
import io
import json
import math
import re
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.evaluation.ood.score_table import read_scores
from pipelines.stages.registry import reported

pytestmark = pytest.mark.e2e

VARIANTS = {"hybrid": True, "contrastive": False}  # whether it has a likelihood
SPLITS = ("train", "val", "test", "ood-held-out", "ood-photo-patches")
STAGES = reported()
ALWAYS = ("results.json", "record.json")


def expected_files() -> Iterator[str]:
    """What a run writes, Great Expectations' own project aside."""
    yield from (f"data/prepared/{split}.npy" for split in SPLITS)
    yield from (f"data/prepared/{name}" for name in ("palette.npy", "manifest.parquet", "quarantine.csv"))
    yield from (f"data/prepared/{name}.json" for name in ("dataset", "training"))
    yield "data/validation/passed.json"
    yield "outputs/sources/listing.json"
    yield from (f"outputs/sources/start/{variant}.json" for variant in VARIANTS)
    yield from (f"data/validation/summary.{form}" for form in ("json", "md"))
    yield from (
        f"outputs/{stage}/{name}" for stage in ("prepare", "validate", "baselines", "compare") for name in ALWAYS
    )
    yield from (
        f"outputs/compare/{name}"
        for name in ("comparison.md", "comparison.png", "metrics.json", "curves.csv", "roc.csv", "confusion.csv")
    )
    yield "outputs/compare/report.html"
    yield from (f"outputs/compare/layers-{probe}.png" for probe in ("linear", "knn"))
    yield from (
        f"outputs/compare/curve-{name}.png" for name in ("nll_nats_per_token", "contrastive_loss", "knn_accuracy")
    )
    for variant, likelihood in VARIANTS.items():
        out = f"outputs/{variant}"
        yield from (f"{out}/{stage}/{name}" for stage in STAGES for name in ALWAYS)
        report, figures = f"outputs/reports/{variant}", f"outputs/reports/{variant}/figures"
        yield from (f"{report}/{name}" for name in (*ALWAYS, "stages.json", "hardest.parquet", "left_out.json"))
        yield from (f"{report}/{name}.csv" for name in ("curves", "roc", "confusion", "layers"))
        yield f"{figures}/pretrain/training.png"
        yield from (f"{figures}/probe/{name}.png" for name in ("confusion", "reliability", "few_label", "layers"))
        yield from (f"{figures}/ood/{name}.png" for name in ("roc", "auroc", "scores", "map", "robustness"))
        yield from (f"{out}/pretrain/{name}" for name in ("model.safetensors", "curves.csv"))
        yield from (f"{out}/embed/{split}.features.npy" for split in SPLITS)
        yield from (f"{out}/probe/{name}" for name in ("probe.npz", "figures.npz", "confusion.csv", "reliability.csv"))
        yield from (f"{out}/ood/{name}.json" for name in ("thresholds", "left_out"))
        yield from (f"{out}/ood/{name}" for name in ("fused.npz", "map.npz", "roc.csv", "openood.csv", "openood.md"))
        yield f"{out}/ood/hardest.parquet"
        yield from (
            f"{out}/export/{name}"
            for name in ("model.onnx", "card.md", "decode.py", "example.npy", "reference.npz", "known_images.npy")
        )
        kinds = ("contrast", "gaussian_blur")
        corrupted = [f"{out}/embed/corrupted/{kind}-{severity}" for kind in kinds for severity in (2, 5)]
        yield from (f"{path}.features.npy" for path in corrupted)
        kinds = ("rows", "encoder", "decoder") if likelihood else ("rows", "encoder")
        yield from (f"{out}/embed/layers/{split}.{kind}.npy" for split in ("train", "val", "test") for kind in kinds)
        yield f"{out}/probe/layers.csv"
        yield f"{out}/ood/scores.parquet"
        yield f"{out}/ood/robustness.csv"
        if likelihood:
            yield from (f"{path}.bits_per_dim.npy" for path in corrupted)
            kinds = ("bits_per_dim", "bits_without_context")
            yield from (f"{out}/embed/{split}.{kind}.npy" for split in SPLITS for kind in kinds)
            kinds = ("samples", "completions")
            yield from (f"{out}/pretrain/{name}.npz" for name in kinds)
            yield from (f"{figures}/pretrain/{name}.png" for name in kinds)


def test_it_writes_exactly_these_files(finished):
    written = set(finished.files())
    great_expectations = {path for path in written if fnmatch.fnmatch(path, "data/validation/gx/*")}
    assert any(path.endswith(".html") for path in great_expectations)
    assert written - great_expectations == set(expected_files())


def test_git_sees_none_of_it(fresh, finished):
    tracked = finished.run("git", "ls-files").stdout.split()
    before = fresh.run("git", "ls-files").stdout.split()
    assert set(tracked) - set(before) == {"dvc.lock"}


def test_results_hold_numbers_and_what_they_depend_on(finished):
    fingerprint = json.loads((finished.root / "data/prepared/dataset.json").read_text())["fingerprint"]
    found = sorted((finished.root / "outputs").rglob("results.json"))
    assert len(found) == 4 + (len(STAGES) + 1) * len(VARIANTS)
    for path in found:
        results = json.loads(path.read_text())
        assert set(results) == {"metrics", "constants"}
        assert results["metrics"], path
        assert all(isinstance(v, int | float) and math.isfinite(v) for v in results["metrics"].values()), path
        stage = path.parts[-2]
        if stage == "pretrain":
            assert len(results["constants"]["data_fingerprint"]) == 64
        elif stage not in ("compare", *VARIANTS):  # those two gather the others' numbers
            assert results["constants"]["data_fingerprint"] == fingerprint, path
        if stage in ("prepare", "pretrain", "probe", "ood", "baselines"):
            assert results["constants"]["seed"] == 0, path


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_images_that_a_detector_gets_most_wrong(finished, variant):
    folder = finished.root / "outputs" / variant / "ood"
    found = pq.read_table(folder / "hardest.parquet").to_pylist()
    scores = read_scores(folder / "scores.parquet")
    assert len(found) == 16 * (4 + VARIANTS[variant])  # eight of each kind for every detector
    for row in found:
        split = "test" if row["set"] == "test" else f"ood-{row['set']}"
        image = np.load(finished.root / f"data/prepared/{split}.npy", mmap_mode="r")[row["index"]]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["picture"]))), image[..., 0])
        assert row["score"] == scores[row["detector"]][row["set"]][row["index"]]
    worst = next(row for row in found if row["detector"] == "fused" and row["set"] == "test")
    assert worst["score"] == scores["fused"]["test"].max()


def test_what_it_says(finished):
    said = (finished.root.parent / "repro.log").read_text()
    assert "prepared train 1,007, val 143, test 287, ood-held-out 360, ood-photo-patches 100 images" in said
    assert "detector nll left out: it needs a likelihood, and this variant has none" in said
    assert "Champion of gcrl is now version" in said
    assert "Traceback" not in said
    assert "Warning" not in said


def test_the_comparison_table_ranks_the_variants(finished):
    page = (finished.root / "outputs/compare/comparison.md").read_text()
    rows = [[cell.strip(" *") for cell in line.split("|")] for line in page.splitlines() if line.startswith("| ")]
    assert {row[1] for row in rows[1:]} == set(VARIANTS)
    assert float(rows[1][2]) >= float(rows[2][2])
    assert f"Best: **{rows[1][1]}**; gate passed" in page
    for mentioned in (f"outputs/{rows[1][1]}/export/model.onnx", "outputs/compare/comparison.png"):
        assert mentioned in page
        assert (finished.root / mentioned).is_file()


def test_a_second_run_does_nothing(finished):
    before = finished.files()
    runs = set((finished.root / ".tracking").rglob("*"))
    said = finished.dvc("repro").stdout
    assert re.findall("Running stage '(.+)'", said) == ["sources"]  # which looks for new images
    assert said.count("didn't change, skipping") == 4 + (len(STAGES) + 1) * len(VARIANTS)
    assert finished.files() == before
    assert set((finished.root / ".tracking").rglob("*")) == runs
    assert finished.run("git", "status", "--porcelain").stdout == ""


def test_dvc_shows_metrics_and_parameters(scratch):
    shown = json.loads(scratch.dvc("metrics", "show", "--json").stdout)
    numbers = shown[""]["data"]["outputs/compare/metrics.json"]["data"]
    assert set(numbers) == set(VARIANTS)
    assert {"linear_accuracy", "near_ood_auroc", "far_ood_auroc"} <= set(numbers["hybrid"])
    scratch.edit({"variants.hybrid.w_con": 0.5})
    changed = json.loads(scratch.dvc("params", "diff", "--json").stdout)
    assert changed == {"params.yaml": {"variants.hybrid.w_con": {"old": 1.0, "new": 0.5, "diff": -0.5}}}


def test_dvc_plots(scratch):
    told = scratch.dvc("plots", "show").stdout
    page = scratch.root / "dvc_plots/index.html"
    assert str(page) in told
    for part in ("Likelihood while training", "Contrastive loss while training", "ROC of the fused", "comparison.png"):
        assert part in page.read_text()
    plots = json.loads(scratch.dvc("plots", "show", "--json").stdout)["data"]
    drawn = {name: plot[0]["content"]["data"]["values"] for name, plot in plots.items() if plot[0]["type"] == "vega"}
    assert len(drawn) == 4
    assert {row["variant"] for row in drawn["ROC of the fused OOD score"]} == set(VARIANTS)
    with (scratch.root / "outputs/hybrid/pretrain/curves.csv").open(newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    assert [row["step"] for row in drawn["likelihood"] if row["variant"] == "hybrid"] == steps
    assert len(drawn["confusion of the best variant"]) == 287
    assert scratch.run("git", "status", "--porcelain").stdout == ""
