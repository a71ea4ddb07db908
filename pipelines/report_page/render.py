"""Write the page: figures over all variants, then everything into one HTML file."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.data.prepared import Prepared
from components.distillation.config import StudentConfig
from components.files import atomic_file, read_rows
from components.plotting.comparison import layer_lines, variant_lines
from pipelines.config.params import GateConfig
from pipelines.metrics import compared
from pipelines.report_page import content
from pipelines.report_page.content import Report

HERE = Path(__file__).parent
PAGE = "report.html"
CURVES = {  # column of curves.csv → title, whether it is a share
    "nll_nats_per_token": ("Likelihood while training, nats a token", False),
    "contrastive_loss": ("Contrastive loss while training", False),
    "val/knn_accuracy": ("k-NN accuracy on validation images", True),
}


def draw_figures(reports: Sequence[Report], folder: Path) -> None:
    """Training curves over each other, and the probes layer by layer where known; reports in the order of colours."""
    for column, (title, percent) in CURVES.items():
        lines = {report.name: _points(report.folder / "curves.csv", column) for report in reports}
        if any(lines.values()):
            place = folder / f"curve-{column.rpartition('/')[2]}.png"
            variant_lines(lines, title, "training step", place, percent)
    rows = {report.name: content.layers(report) for report in reports}
    if any(rows.values()):
        for probe, title in content.ACCURACIES.items():
            points = {
                name: [(row["part"], float(row[f"{probe}_accuracy"])) for row in of_variant]
                for name, of_variant in rows.items()
            }
            layer_lines(points, f"Layer by layer: {title} on test", folder / f"layers-{probe}.png")


def write_page(
    folder: Path, reports: Sequence[Report], prepared: Prepared, gate: GateConfig, registry: str = ""
) -> None:
    """Write report.html beside comparison.png and what `draw_figures` drew. `registry`: what became of the champion.

    Same reports, same bytes: its dates are those of the reports.
    """
    reports = sorted(reports, key=lambda report: report.score, reverse=True)
    with atomic_file(folder / PAGE) as temporary:
        temporary.write_text(_html(reports, prepared, gate, registry, folder))


def _html(reports: Sequence[Report], prepared: Prepared, gate: GateConfig, registry: str, figures: Path) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # near sets first: they are the hard ones
    distances = dict(sorted(prepared.ood.items(), key=lambda item: item[1] == "far"))
    return environment.get_template("page.html").render(
        style=(HERE / "page.css").read_text(),
        source=" and ".join(s["name"] for split, s in prepared.meta["sources"].items() if not split.startswith("ood-")),
        data=prepared.meta,
        distances=distances,
        reports=reports,
        students=[report.name for report in reports if isinstance(report.settings, StudentConfig)],
        table=content.table(reports),
        strengths={report.name: content.strengths(report, reports) for report in reports},
        objectives={report.name: content.objective(report.settings) for report in reports},
        settings={report.name: content.settings(report.settings) for report in reports},
        detectors={report.name: content.detectors(report, distances) for report in reports},
        hardest={report.name: content.hardest(report) for report in reports},
        layers={report.name: content.layers(report) for report in reports},
        figures={path.stem: uri(path) for path in sorted(figures.glob("*.png"))},
        pictures={
            report.name: {path.stem: uri(path) for path in sorted((report.folder / "figures").rglob("*.png"))}
            for report in reports
        },
        curves=CURVES,
        accuracies=content.ACCURACIES,
        not_measured=content.not_measured(reports),
        stages=content.stages(reports),
        versions=content.versions(reports),
        made=content.moment(max(report.record["finished"] for report in reports)),
        commit=content.commit(reports[0].record.get("provenance", {})),
        gate=gate,
        titles={metric.name: metric.title for metric in compared()},
        registry=registry,
        data_uri=data_uri,
    )


def uri(path: Path) -> str:
    """A PNG file as a data URI."""
    return data_uri("png", path.read_bytes())


def data_uri(form: str, picture: bytes) -> str:
    """A picture as a data URI."""
    return f"data:image/{form};base64,{base64.b64encode(picture).decode()}"


def _points(path: Path, column: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[column])) for row in read_rows(path, ["step"]) if row.get(column)]
