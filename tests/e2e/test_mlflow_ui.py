"""MLflow's pages over a finished run, looked at in Chromium: the models and their numbers are there without a click."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from benchmarks.screenshots import browse, browser, drawn
from components.plotting.style import variant_colours
from pipelines.metrics import METRICS, compared
from pipelines.tracking import store
from pipelines.tracking.views import VIEWS

pytestmark = pytest.mark.e2e

VARIANTS = ("hybrid", "contrastive")


@pytest.fixture(scope="module")
def client(mlflow_ui) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(mlflow_ui, registry_uri=mlflow_ui)  # or it asks the registry that another test set


@pytest.fixture(scope="module")
def experiment(client) -> str:
    return str(client.get_experiment_by_name("throw-away").experiment_id)


@pytest.fixture(scope="module")
def models(client, experiment) -> dict[str, Any]:
    return {run.data.tags["variant"]: run for run in client.search_runs([experiment], "tags.kind = 'model'")}


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on the PATH (Debian's package chromium)")
    with browser(width=2300, height=1000) as page:
        yield page


def table(page: Any) -> dict[str, dict[str, str]]:
    """The run table as it is on the screen: {run name: {column: text}}."""
    rows: dict[str, dict[str, str]] = {}
    for cell in page.locator(".ag-row [col-id]").all():
        row = cell.evaluate("cell => cell.closest('.ag-row').getAttribute('row-index')")
        rows.setdefault(row, {})[cell.get_attribute("col-id")] = cell.inner_text().strip()
    # a run's name comes after the colour of its charts
    return {row["attributes.`Run Name`"].splitlines()[-1]: row for row in rows.values()}


@pytest.mark.parametrize("key", ["models", "ranking"])
def test_one_row_a_model_with_the_numbers_that_matter(page, mlflow_ui, experiment, models, key):
    view = next(view for view in VIEWS if view.key == key)
    browse(page, view.address(mlflow_ui, experiment), models["hybrid"].info.run_name)
    rows = table(page)
    others = {"compare"} if key == "models" else set()
    assert set(rows) == {run.info.run_name for run in models.values()} | others  # no stage, all of them are folded
    for run in models.values():
        row = rows[run.info.run_name]
        for name in ("score", *(column.name for column in compared())):
            value = run.data.metrics.get(name)
            if not any(name in other.data.metrics for other in models.values()):  # MLflow has no such column
                assert f"metrics.`{name}`" not in row
                continue
            told = row[f"metrics.`{name}`"]
            assert told == "-" if value is None else float(told) == pytest.approx(value, abs=5e-5), name
        assert run.data.tags["variant"] in row["attributes.`Models`"]
    if key == "ranking":
        scores = [float(row["metrics.`score`"]) for row in rows.values()]
        assert scores == sorted(scores, reverse=True)


def test_a_row_unfolds_into_its_stages(page, mlflow_ui, experiment, models):
    browse(page, VIEWS[0].address(mlflow_ui, experiment), models["hybrid"].info.run_name)
    page.locator(".ag-row", has_text=models["hybrid"].info.run_name).locator("button").first.click()
    page.get_by_text("hybrid · pretrain").first.wait_for()
    assert {f"hybrid · {stage}" for stage in ("pretrain", "embed", "probe", "ood", "export")} <= set(table(page))


def test_both_losses_overlay(page, mlflow_ui, experiment, models):
    browse(page, VIEWS[2].address(mlflow_ui, experiment), "pretrain/nll_nats_per_token", "pretrain/contrastive_loss")
    drawn(page, 4)
    chart = page.locator(".js-plotly-plot").nth(1)
    read = "line => [line.name, [Array.from(line.x), line.marker.color]]"
    lines = dict(chart.evaluate(f"chart => chart.data.filter(line => line.x?.length).map({read}).reverse()"))
    assert len(lines) == len(VARIANTS)  # each is there twice; the first is the line, the second a pale shadow of it
    for variant, run in models.items():
        steps, colour = next(line for name, line in lines.items() if name.startswith(run.info.run_name))
        assert steps == [5, 10, 15, 20, 25, 30]
        assert colour == variant_colours(VARIANTS)[variant]  # as in the project's figures
    assert page.locator(".parcoords").count() == 1


def test_models_of_plain_data_stand_side_by_side(page, mlflow_ui, client):
    """Without near or far OOD sets, corruptions, ten labels a class, and a likelihood."""
    experiment = store.experiment_id(client, mlflow_ui, "plain data")
    optional = {"near_ood_auroc", "far_ood_auroc", "robustness", "few_label_accuracy", "bits_per_dim"}
    for weight in (0.0, 1.0):
        run = client.create_run(experiment, tags={"kind": "model"}).info.run_id
        client.log_param(run, "variant.w_gen", weight)
        for name in {"score", *(column.name for column in compared())} - optional:
            client.log_metric(run, name, 0.5 + weight / 10)
    browse(page, VIEWS[2].address(mlflow_ui, experiment))
    page.locator(".parcoords").wait_for()  # which MLflow leaves out where no model has all of the numbers
    always = [metric.name for metric in METRICS.values() if metric.every_model_has_it]
    assert page.locator(".parcoords .dimension").count() == len(always) + 2  # and the score and a parameter
    client.delete_experiment(experiment)


def test_compare_page(page, mlflow_ui, experiment, models):
    runs = json.dumps([run.info.run_id for run in models.values()])
    address = f"{mlflow_ui}/#/compare-runs?runs={quote(runs)}&experiments={quote(json.dumps([experiment]))}"
    browse(page, address, "Parallel Coordinates Plot", *(run.info.run_name for run in models.values()))
    drawn(page, 1)
    axes = page.locator(".parcoords .axis-title").all_inner_texts()
    assert len(axes) >= 2


def test_charts_and_figures_of_a_run(page, mlflow_ui, experiment, client):
    pretrain = client.search_runs([experiment], "tags.stage = 'pretrain' AND tags.variant = 'hybrid'")[0].info.run_id
    address = f"{mlflow_ui}/#/experiments/{experiment}/runs/{pretrain}"
    browse(page, f"{address}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("contrastive_loss|nll_nats_per_token")
    drawn(page, 2)
    for title in ("contrastive_loss", "nll_nats_per_token"):
        page.get_by_text(title, exact=True).first.wait_for()
    model = client.search_runs([experiment], "tags.kind = 'model' AND tags.variant = 'hybrid'")[0].info.run_id
    place = "artifacts/figures/pretrain/training.png"
    browse(page, f"{mlflow_ui}/#/experiments/{experiment}/runs/{model}/{place}", "training.png")
    page.wait_for_function("[...document.images].some(image => image.naturalWidth > 400)")


def test_version_page(page, mlflow_ui, client):
    champion = client.get_model_version_by_alias("gcrl", "champion")
    told = (f"Model card: {champion.tags['variant']}", "champion", "challenger")
    kept = ("data_fingerprint", "git.commit", "gate_passed", "ood_score")
    browse(page, f"{mlflow_ui}/#/models/gcrl/versions/{champion.version}", *told, *kept)


def test_links_print_these_pages(finished, mlflow_ui, experiment):
    told = finished.python("pipelines", "tracking", "links", mlflow_ui).stdout
    assert [line.split(": ", 1)[1] for line in told.splitlines()] == [v.address(mlflow_ui, experiment) for v in VIEWS]
    assert Path(finished.root / "mlruns" / "mlflow.db").exists()
