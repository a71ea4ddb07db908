"""Take the pictures in the docs: of the runs that a running MLflow server shows, and of the report page.

    make ui &
    python -m benchmarks.screenshots http://127.0.0.1:5000
    python -m benchmarks.screenshots outputs/compare/report.html

Chromium must be installed (Debian's package `chromium`). Nothing is changed on the server.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlflow import MlflowClient

from pipelines.tracking.views import MODELS, VIEWS

if TYPE_CHECKING:
    from playwright.sync_api import Page

WAIT = 60_000  # milliseconds
IMAGES = Path("docs/images")


@contextmanager
def browser(width: int, height: int) -> Iterator["Page"]:
    """A page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(WAIT)
        # MLflow's assistant takes a third of the window until someone closes it
        page.add_init_script("localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')")
        yield page
        chromium.close()


def browse(page: "Page", address: str, *texts: str) -> None:
    """Open one of MLflow's pages and wait until it shows these texts."""
    page.goto("about:blank")  # addresses that differ after the # alone would load nothing anew
    page.goto(address)
    for text in texts:
        page.get_by_text(text).first.wait_for()


def drawn(page: "Page", count: int) -> None:
    """Wait until at least so many charts show lines, bars or axes."""
    page.wait_for_function(
        """count => [...document.querySelectorAll('.js-plotly-plot, .parcoords')]
           .filter(chart => chart.querySelector('.trace, .bars, .axis, canvas')).length >= count""",
        arg=count,
    )


def take(server: str, experiment_name: str) -> None:
    """Write docs/images/mlflow_*.png."""
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(experiment_name)
    if experiment is None:
        raise SystemExit(f"error: {server} has no experiment {experiment_name}")
    models = client.search_runs([experiment.experiment_id], MODELS, order_by=["start_time DESC"])
    if not models:
        raise SystemExit(f"error: {experiment_name} has no model yet: make run")
    newest = {run.data.tags["variant"]: run for run in reversed(models)}
    place = f"{server}/#/experiments/{experiment.experiment_id}"
    table, _, charts = (view.address(server, experiment.experiment_id) for view in VIEWS)
    ids = json.dumps([run.info.run_id for run in newest.values()])
    stages = f"tags.stage = 'pretrain' AND tags.`mlflow.parentRunId` = '{newest['hybrid'].info.run_id}'"
    reused = newest["hybrid"].data.tags.get("gcrl.reused.pretrain")  # where it came from the cache
    pretrain = reused or client.search_runs([experiment.experiment_id], stages)[0].info.run_id
    with browser(1800, 900) as page:

        def picture(name: str) -> None:
            page.wait_for_timeout(3000)  # transitions
            page.screenshot(path=IMAGES / f"mlflow_{name}.png")

        browse(page, table, "linear_accuracy")  # the first visit opens the assistant whatever its setting
        browse(page, table, "linear_accuracy")
        page.set_viewport_size({"width": 1800, "height": 600})
        hybrid = newest["hybrid"].info.run_name
        page.locator(".ag-row", has_text=hybrid).locator("button").first.click()
        picture("table")
        page.set_viewport_size({"width": 1800, "height": 1200})
        browse(page, charts, "pretrain/contrastive_loss")
        drawn(page, 4)
        picture("charts")
        experiments = json.dumps([experiment.experiment_id])
        compared = f"runs={quote(ids)}&experiments={quote(experiments)}&workflowType=machine_learning"
        browse(page, f"{server}/#/compare-runs?{compared}", "Box Plot")
        drawn(page, 1)
        picture("compare")
        browse(page, f"{place}/runs/{pretrain}/model-metrics?workflowType=machine_learning")
        page.get_by_placeholder("Search metric charts").fill("contrastive_|nll_nats|val/")
        drawn(page, 2)
        picture("run")


def take_page(path: Path) -> None:
    """Write docs/images/report_*.png: the page's beginning, and what detectors get most wrong."""
    with browser(1500, 1500) as page:
        page.goto(path.resolve().as_uri())
        page.screenshot(path=IMAGES / "report_overview.png")
        section = page.locator("section.variant").first
        maps, mistakes = page.locator("#maps"), section.locator("details[open]").first
        for name, part in {"maps": maps, "mistakes": mistakes}.items():
            part.screenshot(path=IMAGES / f"report_{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="address of MLflow's UI, or a report page")
    parser.add_argument("--experiment", default="gcrl")
    options = parser.parse_args()
    if options.source.endswith(".html"):
        take_page(Path(options.source))
    else:
        take(options.source.rstrip("/"), options.experiment)


if __name__ == "__main__":
    main()
