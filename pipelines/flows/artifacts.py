"""What a flow run shows in Prefect of the stages it ran: a table, and the comparison of the variants."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from components.files import read_json
from components.markdown import literal, table
from pipelines.flows.dvc_runner import Outcome, summary
from pipelines.paths import stage_folder
from pipelines.tracking import store


def show_outcomes(key: str, outcomes: Mapping[str, Outcome], folder: Path) -> None:
    """Artifact `key` is a table of the stages; artifact `comparison` what the stage compare wrote, if it got there."""
    create_markdown_artifact(markdown(outcomes, folder), key=key, description=literal(summary(outcomes)))
    page, figure = (folder / stage_folder("compare") / f"comparison.{kind}" for kind in ("md", "png"))
    if "compare" in outcomes and outcomes["compare"].result in ("run", "cached") and page.exists():
        shown = f"\n![The variants compared]({picture(figure)})\n" if figure.exists() else ""
        create_markdown_artifact(page.read_text() + shown, key="comparison", description="The variants compared")


def picture(file: Path) -> str:
    """A PNG file as an address that holds all of it: a browser can't reach the file."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def markdown(outcomes: Mapping[str, Outcome], folder: Path) -> str:
    """The table; a model's report links to its MLflow run where MLflow is a server."""
    links = _links(outcomes, folder)
    rows = [
        [
            f"[{literal(name)}]({links[name]})" if name in links else literal(name),
            outcome.result,
            f"{outcome.seconds:.1f}",
            literal(outcome.message),
        ]
        for name, outcome in outcomes.items()
    ]
    return f"{literal(summary(outcomes))}.\n\n{table(['stage', 'result', 'seconds', 'why'], rows, 'llr')}"


def _links(outcomes: Mapping[str, Outcome], folder: Path) -> dict[str, str]:
    """report@V and report-student@S → the address of its MLflow run."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    keys = {}
    for name, outcome in outcomes.items():
        group, _, variant = name.partition("@")
        stage = group.removesuffix("-student")
        record = folder / stage_folder(stage, variant) / "record.json"
        if stage == "report" and outcome.result in ("run", "cached") and record.exists():
            keys[name] = read_json(record, "run_key")
    try:
        addresses = store.run_links(keys.values(), uri, folder / ".tracking")
    except Exception as error:  # what a network can do has no common type
        get_run_logger().warning("No links to MLflow runs: %s", store.explain(error, uri))
        return {}
    return {name: addresses[key] for name, key in keys.items() if key in addresses}
