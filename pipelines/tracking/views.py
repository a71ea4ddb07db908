"""Saved views of an experiment: MLflow's UI lists them under "Views", and shows the comparison without any clicking.

MLflow keeps a saved view in a tag of the experiment: what its own "Save view" writes, as JSON.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.comparison import CURVES
from pipelines.metrics import METRICS, compared

TAG = "mlflow.sharedViewState."
CURVES_SECTION, PARALLEL_SECTION, BARS_SECTION = "training curves", "models across numbers", "number by number"
SECTIONS = {CURVES_SECTION: 3, PARALLEL_SECTION: 1, BARS_SECTION: 4}  # charts side by side
MODELS = "tags.kind = 'model'"


@dataclass(frozen=True)
class View:
    """Which runs the run table and the charts show, and in which order; the columns and charts are the same in all."""

    key: str
    name: str
    runs: str  # a filter in MLflow's search syntax
    order: str
    charts: bool = False

    def address(self, server: str, experiment_id: str) -> str:
        """Where the view opens."""
        # without the workflow, MLflow's sidebar is one for chats and prompts
        query = f"viewStateShareKey={self.key}&workflowType=machine_learning"
        mode = "&compareRunsMode=CHART" if self.charts else ""
        return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}{mode}"

    @cached_property
    def value(self) -> str:
        """The tag's value. Its date stays the same: a view changes with this code alone."""
        names = ["score", *(metric.name for metric in compared())]
        state = {
            **{"searchFilter": self.runs, "orderByKey": self.order, "orderByAsc": False, "startTime": "ALL"},
            "selectedColumns": ["attributes.`Models`", *(f"metrics.`{name}`" for name in names)],
            "columnOrder": ["attributes.`Run Name`", *(f"metrics.`{name}`" for name in names), "attributes.`Models`"],
            "columnWidths": {"attributes.`Run Name`": 240}
            | {f"metrics.`{n}`": max(65, 20 + 6 * len(n)) for n in names},
            "runsHiddenMode": "FIRST_20_RUNS",
            "isAccordionReordered": True,  # else MLflow sorts these sections in among those it adds, a metric a chart
            "compareRunSections": [
                {"uuid": name, "name": name, "display": True, "isReordered": True, "columns": columns}
                for name, columns in SECTIONS.items()
            ],
            "compareRunCharts": _charts(names),
        }
        return json.dumps({"name": self.name, "createdAt": 0, "state": json.dumps(state)})


VIEWS = (
    View("models", "Models, their stages folded", "", "attributes.start_time"),
    View("ranking", "Models by score", MODELS, "metrics.`score`"),
    View("charts", "Charts of the models", MODELS, "attributes.start_time", charts=True),
)


def tags() -> dict[str, str]:
    """The views as tags of an experiment."""
    return {TAG + view.key: view.value for view in VIEWS}


def _charts(names: Sequence[str]) -> list[dict[str, Any]]:
    # MLflow leaves a model that lacks one of these out of the chart; the last one colours the lines
    parallel = [*(metric.name for metric in METRICS.values() if metric.every_model_has_it), "score"]
    charts: dict[str, list[dict[str, Any]]] = {
        CURVES_SECTION: [
            {"type": "LINE", "metricKey": name, "selectedMetricKeys": [name], "lineSmoothness": 0}
            for name in (f"pretrain/{curve}" for curve in CURVES)
        ],
        PARALLEL_SECTION: [{"type": "PARALLEL", "selectedParams": ["variant.w_gen"], "selectedMetrics": parallel}],
        BARS_SECTION: [{"type": "BAR", "metricKey": name} for name in names],
    }
    return [
        {"uuid": f"{section}-{i}", "metricSectionId": section, "runsCountToCompare": 20, "isGenerated": False} | chart
        for section in SECTIONS
        for i, chart in enumerate(charts[section])
    ]
