"""report: one MLflow run a model, with every number, figure, setting and data set, its stages' runs nested under it."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from components.data.prepared import Prepared
from components.files import read_json, read_rows, write_json
from pipelines.command_start import started
from pipelines.comparison import CURVES, row, score
from pipelines.config.params import Params
from pipelines.paths import PREPARED, stage_folder
from pipelines.stages.attempts import forget
from pipelines.stages.figures import draw_figures
from pipelines.stages.registry import Stage, all_stages, reported
from pipelines.stages.results import constants_of, has_run, metrics_of, record_of
from pipelines.stages.stage_run import RESULTS, log_data, stage_run
from pipelines.tracking import Journal, deliver
from pipelines.tracking.journal import inherited_tags
from pipelines.tracking.provenance import GIT_TAGS, git_commit
from pipelines.tracking.run_inputs import Inputs

STAGE = Stage(does="everything to MLflow", per="encoder", after=("baselines", "export"))
COPIED = {  # by stage, for the comparison and its page; a variant may lack some
    "pretrain": ("curves.csv",),
    "probe": ("confusion.csv", "layers.csv"),
    "ood": ("roc.csv", "hardest.parquet", "left_out.json"),
}
FIGURES = "figures"


def run(params: Params, variant: str, run_name: str | None = None, register: bool = True, whole: bool = True) -> None:
    """Write outputs/reports/V with all that the comparison needs, and deliver every journal so far to MLflow.

    The run is that of whatever it reports: reported again, from the same stages' runs, it is the same run.

    A study's models are reported without the stages that did not run (not `whole`), under a name of their own, and
    become versions in the registry only where that is wanted.
    """
    sections = ("data", "augmentation", "embed", "probe", "export")
    settings = {
        "student" if variant in params.students else "variant": params.encoder(variant),
        "model": params.model_of(variant),
        "training": params.training_of(variant),
        "ood": replace(params.ood, detectors=tuple(constants_of("ood", variant)["detectors"])),  # their names
        **{name: getattr(params, name) for name in sections},
    }
    prepared = Prepared.open(PREPARED)
    stages = [name for name in reported() if whole or has_run(name, variant)]
    metrics = {name: metrics_of(name, variant) for name in stages}
    measured = [name for name in reported(shared=True) if whole or has_run(name)]
    shared = {name: metrics_of(name) for name in measured}
    own = {name: record_of(name, variant) for name in stages}
    nested = [name for name, stage in all_stages().items() if stage.per == "run" and stage.in_report]
    records = own | {name: record_of(name) for name in nested if whole or has_run(name)}
    values = row(metrics)
    total = score(values, params.gate.score)
    content = {
        "runs": {name: record["run_key"] for name, record in own.items()},
        "numbers": [metrics, shared, list(params.gate.score), total],
        "data": prepared.fingerprint(),
    }
    inputs = Inputs(content, max(record["finished"] for record in own.values()))
    with stage_run(params, "report", variant, settings, inputs) as stage:
        journal = stage.journal
        journal.tags({"mlflow.runName": run_name or f"{variant} {datetime.now(UTC):%Y-%m-%d %H:%M}", "kind": "model"})
        log_data(stage, prepared, dict.fromkeys(prepared.splits, "model"))
        cached = [name for name, record in records.items() if record["finished"] < started()]
        curves = read_rows(stage_folder("pretrain", variant) / "curves.csv", ["step"])
        with stage.folder() as out:
            out.metrics = {name: value for name, value in values.items() if value is not None} | {"score": total}
            out.rounded = {name: round(value, 4) for name, value in out.metrics.items()}
            out.constants = {"score": list(params.gate.score), "cached_stages": cached, "seed": params.seed}
            out.constants["parameters"] = constants_of("pretrain", variant)["parameters"]
            if "export" in stages:
                out.constants["onnx_megabytes"] = metrics["export"]["onnx_megabytes"]
            for source in (stage_folder(name, variant) / file for name, files in COPIED.items() for file in files):
                if source.exists():
                    shutil.copyfile(source, out.path / source.name)
            owners = dict.fromkeys(stages, variant) | dict.fromkeys(measured)
            write_json(out.path / "stages.json", {name: _results(name, owner) for name, owner in owners.items()})
            draw_figures(variant, prepared, out.path / FIGURES, whole)
        # the few numbers that matter first are in the journal by now, under plain names; here follow all of them
        _log_curves(journal, curves)
        for name, numbers in (metrics | shared).items():
            named = {f"{name}/{key}": value for key, value in numbers.items()}
            journal.metrics({key: value for key, value in named.items() if key not in journal.curves})
        journal.artifact(stage_folder("report", variant) / FIGURES)
        journal.tags({f"stage.{name}": "cached" if name in cached else "run" for name in records})
        journal.nest([record["run_key"] for record in records.values()])
        teacher = {"teacher": params.student(variant).teacher} if variant in params.students else {}
        journal.tags(teacher)
        if "export" in stages:
            registered = params.tracking.registered_model if register else None
            made_of = {"data_fingerprint": prepared.fingerprint(), "score": f"{total:.6g}"}
            made_of["score_name"] = " + ".join(params.gate.score)
            _log_model(journal, variant, registered, teacher | made_of)
    for record in records.values():
        forget(record["stage"], record["variant"])
    deliver()


def _results(stage: str, variant: str | None) -> dict[str, Any]:
    """Metrics, constants and record of a stage."""
    return {**read_json(stage_folder(stage, variant) / RESULTS), "record": record_of(stage, variant)}


def _log_model(journal: Journal, variant: str, registered_name: str | None, tags: Mapping[str, str]) -> None:
    """The exported model with all that its version tells: whose it is, its card, what the comparison asks for."""
    export = stage_folder("export", variant)
    commit = {name.removeprefix("mlflow.source."): value for name, value in _commit().items()}
    journal.model(
        export / "model.onnx",
        name=variant,
        registered_name=registered_name,
        tags={"variant": variant, **tags, **commit},
        description=(export / "card.md").read_text(),
        input_example=export / "example.npy",
        extra_files=[export / "reference.npz", export / "known_images.npy", export / "decode.py"],
    )


def _commit() -> dict[str, str]:
    """Of the code that made the model: where it was made elsewhere, the tags say."""
    return {name: tag for name, tag in (git_commit() | inherited_tags()).items() if name in GIT_TAGS}


def _log_curves(journal: Journal, curves: Iterable[Mapping[str, str]]) -> None:
    """The losses step by step, so that the charts of the models lie over each other, whichever stages were cached."""
    for point in curves:
        values = {f"pretrain/{name}": float(point[name]) for name in CURVES if point.get(name)}
        if values:
            journal.metrics(values, step=int(point["step"]))
