"""What a finished run means for the registry: did the gate pass, who is champion, and what is told about it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.files import read_json
from components.markdown import literal, table
from pipelines.comparison import score, unmet
from pipelines.config.params import Params
from pipelines.metrics import compared as compared_metrics
from pipelines.paths import stage_folder
from pipelines.tracking import deliver, promotion, promotion_result, store
from pipelines.tracking.secrets import without_password


@dataclass(frozen=True)
class PromotionOutcome:
    """The outcome of `compare`."""

    model: str  # the registered model
    variant: str  # the best one
    score: float
    unmet: tuple[str, ...]  # conditions of the gate that it does not meet
    promotion: Mapping[str, Any] | None  # what became of its proposal; None while MLflow has not got it
    pending: str = ""  # why not
    fresh: bool = True  # decided in this run; otherwise it came from the cache

    @property
    def succeeded(self) -> bool:
        """The gate passed and MLflow knows of it. A model that is merely not better than the champion is no failure."""
        return not self.unmet and self.promotion is not None and self.promotion["version"] is not None

    @property
    def moved(self) -> bool:
        """Whether this run made a new champion."""
        return self.fresh and self.promotion is not None and bool(self.promotion["moved"])

    def sentence(self) -> str:
        """Who is champion, and why."""
        if self.promotion is None:
            gate = f"the gate failed: {'; '.join(self.unmet)}; " if self.unmet else ""
            return (
                f"{gate}the promotion of {self.variant} is pending ({self.pending}). The models are trained and "
                "nothing is lost: `make sync` or the next run sends what waits, and decides about the champion"
            )
        version, reason = self.promotion["champion"], self.promotion["reason"]
        if self.unmet:
            stays = f"champion stays version {version}" if version else "there is no champion yet"
            return f"the gate failed: {'; '.join(self.unmet)}; {stays}"
        if version is None:
            return f"no champion of {self.model} yet: {reason}"
        if self.moved:
            return f"champion of {self.model} is now version {version} ({self.variant}): {reason}"
        return f"champion of {self.model} stays version {version}" + (f": {reason}" if self.fresh else "")


def read_verdict(folder: Path, params: Params, tracking: Path, compared: bool) -> PromotionOutcome:
    """The verdict on the results in a folder; `compared`: whether `compare` has just run.

    What waits for MLflow is sent once more, if there is something: a server that was away may be back.
    """
    compare = folder / stage_folder("compare")
    best = read_json(compare / "results.json", "constants", "best")
    numbers = read_json(compare / "metrics.json", best)
    row = {metric.name: numbers.get(metric.name) for metric in compared_metrics()}
    key = read_json(compare / "record.json", "run_key")
    verdict = PromotionOutcome(
        params.tracking.registered_model,
        best,
        score(row, params.gate.score),
        tuple(unmet(row, params.gate.minimum)),
        promotion_result(key, tracking),
        fresh=compared,
    )
    if verdict.promotion is None:
        delivery = deliver(root=tracking, quiet=True)
        late = promotion_result(key, tracking)
        verdict = replace(verdict, promotion=late, fresh=True, pending=delivery.error or "another run is sending it")
    return verdict


def versions_compared(verdict: PromotionOutcome, tracking: Path) -> str:
    """Champion against challenger: a Markdown table of their runs' numbers, "" without any.

    Raises whatever MLflow does where it can't be reached.
    """
    if verdict.promotion is None:
        return ""
    client = store.connect(store.default_uri(tracking), tracking, timeout=30)
    champion = promotion.champion(client, verdict.model)
    wanted = {
        "champion": str(champion.version) if champion else None,
        "champion before": verdict.promotion["previous_champion"] if verdict.moved else None,
        "challenger": verdict.promotion["version"],
    }
    names: dict[str, list[str]] = {}
    for name, version in wanted.items():
        if version is not None:
            names.setdefault(version, []).append(name)
    versions = {version: client.get_model_version(verdict.model, version) for version in names}
    tags = {name: version.tags for name, version in versions.items()}
    metrics = {name: client.get_run(version.run_id or "").data.metrics for name, version in versions.items()}
    rows = [
        ["variant", *(literal(tags[v].get("variant", "–")) for v in names)],
        ["score", *(_number(metrics[v].get("score"), ".4f") for v in names)],
        *([m.title, *(_number(metrics[v].get(m.name), m.form) for v in names)] for m in compared_metrics()),
        ["data", *(literal(tags[v].get("data_fingerprint", "–")[:12]) for v in names)],
    ]
    titles = ["", *(f"{', '.join(names[v])}: {_linked(verdict.model, v)}" for v in names)]
    return table(titles, rows, "l" + "r" * len(names))


def _linked(model: str, version: str) -> str:
    uri = store.default_uri(Path())
    if not uri.startswith("http"):
        return f"version {version}"
    return f"[version {version}]({without_password(uri).rstrip('/')}/#/models/{model}/versions/{version})"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
