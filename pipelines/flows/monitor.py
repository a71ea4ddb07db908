"""The monitor flow: the champion scores the images that have come in, and drift is told."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.states import Completed, Failed, State
from pydantic import ConfigDict, Field, with_config

from components.data.sources.file_kinds import others_told
from components.errors import UserError, os_errors_explained
from components.files import atomic_directory, atomic_file
from components.locks import locked
from components.markdown import literal
from components.monitoring.config import DriftThresholds
from components.monitoring.drift import drift_tests
from components.monitoring.incoming import IncomingFile, list_incoming, not_seen, remember
from components.monitoring.scoring import Scored, Scorer
from components.plotting.monitoring import embedding_projection, score_histogram
from pipelines.config.params import load_params
from pipelines.flows.artifacts import picture
from pipelines.flows.run_names import run_name
from pipelines.tracking import Journal, deliver
from pipelines.tracking.fetch import Fetched, fetch_model
from pipelines.validation.scored_batch import FIGURES, Report, check_batch, write_unusable

EVENT = "gcrl.drift.detected"
DEFAULTS = with_config(ConfigDict(extra="forbid"))(DriftThresholds)()  # an unknown threshold is a mistake


@flow(name="monitor", flow_run_name=run_name, persist_result=False)
def monitor(
    incoming: str,
    output: str = "data/monitoring",
    model: str | None = None,
    alias: str = "champion",
    thresholds: DriftThresholds = DEFAULTS,
    max_unusable: Annotated[float, Field(ge=0, le=1)] = 0.1,
    batch_size: Annotated[int, Field(ge=1)] = 256,
    everything: bool = False,
    project: str = ".",
) -> State[None]:
    """Score what is new in a folder of images; fail where it is not what the model was validated on.

    Writes OUTPUT/TIME: predictions.parquet, unusable.csv, drift.json, report.md and figures. The images stay where they
    are. A file is scored once, unless its size or time changes; OUTPUT/seen.json remembers them.

    Args:
        incoming: the folder of images, searched to any depth.
        output: the folder that results are put into.
        model: the registered model; None for the one that params.yaml names.
        alias: which of its versions.
        thresholds: when a batch counts as drifted.
        max_unusable: share of the new files that may be no image the model can take.
        batch_size: images in memory at a time.
        everything: score again what was scored before.
        project: the folder with params.yaml; the other folders are found from there.
    """
    root = Path(project).resolve()
    folder, out = root / incoming, root / output
    try:
        tracking = load_params(root / "params.yaml").tracking
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"output: {out} lies inside the incoming folder: results would be taken for images.")
        files, others = list_incoming(folder)
        name = model or tracking.registered_model
        key = f"models:/{name}@{alias} {folder}"
        with os_errors_explained(), locked(out / ".lock"), tempfile.TemporaryDirectory() as download:
            new = not_seen(files, folder, out / "seen.json", key)
            new = files if everything else new
            if not new:
                return Completed(message=f"nothing new among {len(files):,} files in {folder}")
            fetched = fetch_model(name, alias, Path(download), root / ".tracking")
            get_run_logger().info("%s scores %d new files of %d in %s", fetched, len(new), len(files), folder)
            if others:
                get_run_logger().info(others_told(others))
            report = _report(fetched, new, folder, out, thresholds, max_unusable, batch_size)
            remember(files, out / "seen.json", key)
    except UserError as error:
        return Failed(message=str(error))
    _track(report, fetched, thresholds, f"{tracking.experiment}-monitoring", root / ".tracking")
    pictures = {name: picture(report.folder / name) for name in FIGURES}
    create_markdown_artifact(report.markdown(pictures), key="monitor", description=literal(report.message))
    if report.drifted:
        resource = {"prefect.resource.id": f"gcrl.model.{fetched.name}", "prefect.resource.name": fetched.name}
        payload = {"message": report.message, "incoming": str(folder), "report": str(report.folder)}
        emit_event(EVENT, resource | {"gcrl.model.version": fetched.version}, payload=payload)
    if report.drifted or report.violated:
        return Failed(message=report.message)
    return Completed(message=report.message)


def _report(
    fetched: Fetched,
    new: Sequence[IncomingFile],
    incoming: Path,
    out: Path,
    thresholds: DriftThresholds,
    max_unusable: float,
    batch_size: int,
) -> Report:
    """Score the new files and write all about them to a folder in `out`, complete or not there."""
    for left in out.glob(".2*"):  # of a run that was killed: no other is at it now
        shutil.rmtree(left, ignore_errors=True)
    now = datetime.now(UTC)
    metadata = {"model": fetched.name, "model_version": fetched.version, "model_run": fetched.run_id}
    metadata |= {"incoming": str(incoming), "time": now.isoformat()}
    try:
        scorer = Scorer(fetched.model, fetched.reference)
    except UserError as error:
        raise UserError(f"{fetched}: {error}.") from error
    place = out / f"{now:%Y%m%dT%H%M%S.%f}"
    with atomic_directory(place) as folder:
        scored = scorer.score(new, folder / "predictions.parquet", batch_size, metadata)
        _stop_if_unusable(scored, max_unusable, incoming, out / "unusable.csv", f"{fetched} takes {scorer.takes}")
        tests = drift_tests(scored, scorer.reference, thresholds)
        expectations = check_batch(scored, scorer.reference)
        report = Report(str(fetched), str(incoming), place, scored, scorer.reference, tests, expectations)
        score_histogram(scored, scorer.reference, folder / "scores.png")
        embedding_projection(scored, scorer.reference, folder / "embeddings.png")
        report.write(folder, thresholds)
    return report


def _stop_if_unusable(scored: Scored, allowed: float, incoming: Path, listed: Path, takes: str) -> None:
    """Raise a UserError where too many files can't be used, or all; their list is then left at `listed`."""
    bad, total = len(scored.unusable), len(scored.unusable) + len(scored.path)
    if bad <= allowed * total and scored.path:
        listed.unlink(missing_ok=True)  # of an earlier run
        return
    with atomic_file(listed) as temporary:
        write_unusable(temporary, scored.unusable)
    reasons = Counter(line.reason for line in scored.unusable).most_common(3)
    raise UserError(
        f"incoming: {bad:,} of {total:,} new files in {incoming} can't be used ({bad / total:.1%}, max_unusable allows "
        f"{allowed:.1%}). Reasons: {'; '.join(f'{reason} ({count}×)' for reason, count in reasons)}. {takes}. "
        f"For example {', '.join(line.path for line in scored.unusable[:3])}; all are listed in {listed}. "
        "Repair or remove them, or raise max_unusable."
    )


def _track(report: Report, fetched: Fetched, thresholds: DriftThresholds, experiment: str, root: Path) -> None:
    """Make the batch a run in an experiment of its own, where the numbers of all batches are charted side by side."""
    tags = {"model": fetched.name, "model_version": fetched.version, "drift": bool(report.drifted)}
    journal = Journal.start(
        "monitor",
        name=f"monitor {datetime.now(UTC):%Y-%m-%d %H:%M}",
        params={"incoming": report.incoming, "thresholds": asdict(thresholds)},
        tags=tags | {"mlflow.note.content": literal(report.message)},
        experiment=experiment,
        root=root,
    )
    with journal:
        journal.metrics(report.metrics())
        for file in ("report.md", "drift.json", *FIGURES):
            journal.artifact(report.folder / file)
    deliver(root=root)
