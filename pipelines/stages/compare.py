"""compare: rank the variants in one table and one figure, and let the gate decide about the champion."""

import csv
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data.prepared import Prepared
from components.files import atomic_file, read_rows, write_json
from components.markdown import literal, literals
from components.plotting.comparison import comparison_figure
from components.plotting.style import variant_colours
from pipelines.comparison import Row, Size, beside_teachers, markdown, score, unmet
from pipelines.config.params import Params
from pipelines.metrics import compared as compared_metrics
from pipelines.metrics import measured
from pipelines.paths import PREPARED, stage_folder
from pipelines.report_page.content import Report
from pipelines.report_page.render import PAGE, draw_figures, write_page
from pipelines.stages.champion_comparison import compare_with_champion
from pipelines.stages.registry import Stage
from pipelines.stages.results import constants_of, metrics_of, record_of
from pipelines.stages.stage_run import log_data, stage_run
from pipelines.tracking import Journal, deliver, promotion_result
from pipelines.tracking.run_inputs import Inputs

STAGE = Stage(does="every model in one table, the champion", per="run", after=("report",))


@dataclass(frozen=True)
class Compared:
    """The numbers of all variants and students, and what the gate says of them."""

    rows: dict[str, Row]
    scores: dict[str, float]
    gates: dict[str, list[str]]  # the conditions that are not met

    @classmethod
    def read(cls, params: Params) -> "Compared":
        found = {name: metrics_of("report", name) for name in params.encoders}
        rows: dict[str, Row] = {
            name: {metric.name: m.get(metric.name) for metric in compared_metrics()} for name, m in found.items()
        }
        scores = {name: score(row, params.gate.score) for name, row in rows.items()}
        return cls(rows, scores, {name: unmet(row, params.gate.minimum) for name, row in rows.items()})

    @property
    def best(self) -> str:
        """Whose score is highest."""
        return max(self.scores, key=lambda name: self.scores[name])

    @property
    def gate(self) -> str:
        """What the gate says of the best."""
        return _told(self.gates[self.best])

    @property
    def numbers(self) -> dict[str, dict[str, float]]:
        """What was measured of each."""
        return {name: {k: v for k, v in row.items() if v is not None} for name, row in self.rows.items()}

    def reports(self, params: Params) -> list[Report]:
        """What the page shows of each."""
        colours = variant_colours(params.encoders)
        return [
            Report(
                name,
                settings=params.encoder(name),
                folder=stage_folder("report", name),
                row=self.rows[name],
                score=self.scores[name],
                unmet=self.gates[name],
                colour=colours[name],
            )
            for name in params.encoders
        ]


def run(params: Params) -> None:
    """Write outputs/compare, deliver what is left to MLflow, and say what happened to the champion."""
    prepared = Prepared.open(PREPARED)
    compared = Compared.read(params)
    settings = {"gate": params.gate, "variants": list(params.encoders)}
    with stage_run(params, "compare", settings=settings, inputs=_inputs(params, compared, prepared)) as stage:
        log_data(stage, prepared, {"test": "comparison"})
        reports = compared.reports(params)
        with stage.folder() as out:
            _write_comparison(out.path, params, compared)
            draw_figures(reports, out.path)
            write_page(out.path, reports, prepared, params.gate)
            out.metrics = {f"{name}/{key}": x for name, row in compared.numbers.items() for key, x in row.items()}
            out.constants = {"score": list(params.gate.score), "best": compared.best, "gate": compared.gate}
        for name in ("comparison.md", PAGE):
            stage.journal.artifact(stage_folder("compare") / name)
        stage.journal.tags({"best": compared.best, "gate": compared.gate})
        _ask_for_promotion(stage.journal, params, compared, prepared)
    deliver()
    outcome = _outcome(promotion_result(stage.journal.key), params.tracking.registered_model, compared.gate)
    print(outcome)
    write_page(stage_folder("compare"), reports, prepared, params.gate, outcome)


def _inputs(params: Params, compared: Compared, prepared: Prepared) -> Inputs:
    """All that decides the comparison: the same reports compared again are the same run."""
    records = {name: record_of("report", name) for name in compared.rows}
    content = {
        "runs": {name: record["run_key"] for name, record in records.items()},
        "numbers": [compared.numbers, compared.scores, compared.gates],
        "registered": params.tracking.registered_model,
        "data": prepared.fingerprint(),
    }
    return Inputs(content, max(record["as_of"] for record in records.values()))


def _write_comparison(folder: Path, params: Params, compared: Compared) -> None:
    """The comparison as a page of text, as numbers, as a figure, and what `dvc plots` draws."""
    rows, sizes = compared.rows, {name: _size(name) for name in compared.rows}
    notes = {
        name: f"{student.teacher}'s student, {sizes[name].parameters:,} parameters"
        for name, student in params.students.items()
    }
    page = _page(params, markdown(rows, compared.scores, notes), compared)
    if params.students:
        taught = {name: (student.teacher, student.objective) for name, student in params.students.items()}
        page += f"\n## Students beside their teachers\n\n{beside_teachers(taught, rows, sizes)}"
    (folder / "comparison.md").write_text(page)
    write_json(folder / "metrics.json", compared.numbers)
    _gather("curves.csv", ("step", "nll_nats_per_token", "contrastive_loss"), params, folder)
    _gather("roc.csv", ("false_positive_rate", "mean"), params, folder)
    shutil.copyfile(stage_folder("report", compared.best) / "confusion.csv", folder / "confusion.csv")
    comparison_figure(
        {m.title: {name: row[m.name] for name, row in rows.items()} for m in measured(rows.values())},
        {m.title for m in compared_metrics() if m.higher_is_better},
        folder / "comparison.png",
    )


def _ask_for_promotion(journal: Journal, params: Params, compared: Compared, prepared: Prepared) -> None:
    """Tell the registry what the gate says of every version, and that the best may become champion."""
    registered, score_name = params.tracking.registered_model, " + ".join(params.gate.score)
    keys = {name: record_of("report", name)["run_key"] for name in compared.rows}
    for name, conditions in compared.gates.items():  # what a promotion by hand asks for
        verdict = {"gate_passed": not conditions, "gate": _told(conditions), "score_name": score_name}
        journal.version_tags(registered, keys[name], verdict)
    best = compared.best
    journal.promote(
        registered,
        model_run_key=keys[best],
        score=compared.scores[best],
        score_name=score_name,
        gate_passed=not compared.gates[best],
        gate=compared.gate,
        data_fingerprint=prepared.fingerprint(),
        comparison=compare_with_champion(params, prepared, best, score_name),
    )


def _outcome(promotion: Mapping[str, Any] | None, registered: str, gate: str) -> str:
    """What became of the champion, for people."""
    if promotion is None:
        return "The champion is decided once MLflow can be reached: run `make sync`."
    if promotion["champion"] is None:
        return f"No champion of {registered} yet: {promotion['reason']} ({gate})."
    verb = "is now" if promotion["moved"] else "stays"
    return f"Champion of {registered} {verb} version {promotion['champion']}: {promotion['reason']}."


def _size(name: str) -> Size:
    constants = constants_of("report", name)
    return Size(constants["parameters"], constants["onnx_megabytes"])


def _told(unmet_conditions: list[str]) -> str:
    return "; ".join(unmet_conditions) or "every condition is met"


def _page(params: Params, table: str, compared: Compared) -> str:
    baselines = metrics_of("baselines")
    pixels, untrained = (
        f"{baselines[f'{name}/linear_accuracy']:.1%}, {baselines[f'{name}/knn_accuracy']:.1%}"
        for name in ("raw_pixels", "random_encoder")
    )
    best = compared.best
    folder = stage_folder("export", best)
    gate = f"failed: {compared.gate}" if compared.gates[best] else "passed"
    return f"""# Comparison

{table}
score: mean of {literals(params.gate.score)}. Bold: best of its column. AUROC and FPR@95 are those of the fused score.
Baselines (linear probe, k-NN): raw pixels {pixels}; untrained encoder {untrained}.

Best: **{literal(best)}**; gate {literal(gate)}.

- the report page, with figures, pictures and provenance: {stage_folder("compare")}/{PAGE}
- ONNX model and its card: {folder}/model.onnx, {folder}/card.md
- figures: {stage_folder("compare")}/comparison.png, outputs/reports/VARIANT/figures/
- data: data/validation/summary.md
- runs, charts and the registry in MLflow: `make ui`
"""


def _gather(name: str, columns: tuple[str, ...], params: Params, out: Path) -> None:
    """One long table of every variant's, with a column `variant`: what `dvc plots` draws a line a variant from."""
    with atomic_file(out / name) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", *columns])
        for variant in params.encoders:
            rows = read_rows(stage_folder("report", variant) / name, ())
            writer.writerows([variant, *(row.get(c, "") for c in columns)] for row in rows)
