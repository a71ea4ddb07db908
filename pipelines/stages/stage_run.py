"""What every stage does around its work: keep a journal for MLflow, write its results whole, leave a record."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from components.data.prepared import Prepared
from components.files import atomic_directory, write_json
from components.plotting.style import variant_colours
from pipelines.config.params import Params
from pipelines.paths import stage_folder
from pipelines.stages.attempts import Attempts
from pipelines.tracking import Journal, deliver
from pipelines.tracking.background import sample_system, upload_in_background
from pipelines.tracking.journal import offline
from pipelines.tracking.run_inputs import Inputs

RESULTS, RECORD = "results.json", "record.json"
RUN_COLOUR = "mlflow.runColor"  # the tag that MLflow's charts and run table take a run's colour from


@dataclass(frozen=True)
class Run:
    """A stage at work."""

    stage: str
    variant: str | None
    journal: Journal
    started: float

    @contextmanager
    def folder(self) -> Iterator["Outputs"]:
        """The stage's output folder, complete or not there; results and record are added at the end."""
        with atomic_directory(stage_folder(self.stage, self.variant)) as path:
            outputs = Outputs(path)
            yield outputs
            self.finish(outputs)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Send the journal to MLflow while the stage works, with what the machine does meanwhile."""
        if offline():
            yield
            return
        with upload_in_background(self.journal), sample_system(self.journal):
            yield

    def finish(self, outputs: "Outputs") -> None:
        """Write results.json and record.json, and send metrics and figures to the journal."""
        results = {"metrics": outputs.metrics, "constants": outputs.constants}
        write_json(outputs.path / RESULTS, results)
        seconds = time.time() - self.started
        record = {
            "run_key": self.journal.key,
            "stage": self.stage,
            "variant": self.variant,
            "finished": time.time(),
            "seconds": seconds,
            "provenance": self.journal.provenance,
        }
        if self.journal.as_of is not None:
            record["as_of"] = self.journal.as_of
        write_json(outputs.path / RECORD, record)
        # A curve ends with its result; a second point at step 0 would only spoil its chart.
        single = {k: v for k, v in (outputs.metrics | outputs.rounded).items() if k not in self.journal.curves}
        # Of a run that may be repeated, each try would leave another point: MLflow tells its duration all the same.
        self.journal.metrics(single if self.journal.as_of is not None else {**single, "stage_seconds": seconds})
        self.journal.artifact(outputs.path / RESULTS)
        for figure in sorted(outputs.path.glob("*.png")):
            self.journal.artifact(figure, folder="figures")


class Outputs:
    """A stage's folder while it is written, and the numbers that go into its results.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: dict[str, float] = {}
        self.rounded: dict[str, float] = {}  # as MLflow's tables show them, which do not round
        self.constants: dict[str, Any] = {}


@contextmanager
def stage_run(
    params: Params,
    stage: str,
    variant: str | None = None,
    settings: Mapping[str, Any] | None = None,
    inputs: Inputs | None = None,
) -> Iterator[Run]:
    """Run a stage's work under a journal that MLflow gets; `settings` are the sections that the stage depends on.

    Runs of earlier attempts are nested under this one's; with `inputs`, an earlier attempt was this run itself.

    The journal is delivered at once where the stage fails. Otherwise `pretrain` delivers its own while it trains, and
    `report` and `compare` deliver all: connecting to MLflow takes seconds, which every small stage would pay.
    """
    sections = {k: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in (settings or {}).items()}
    name = f"{variant} · {stage}" if variant else stage
    attempts = None if inputs else Attempts(stage, variant, {"seed": params.seed, **sections})
    earlier: list[str] = []
    journal = Journal.start(
        stage,
        variant,
        name=name,
        params={"seed": params.seed, **sections},
        tags={RUN_COLOUR: variant_colours(params.encoders)[variant]} if variant else {},
        experiment=params.tracking.experiment,
        inputs=inputs,
        announce=lambda key: earlier.extend(attempts.begin(key) if attempts else []),
    )
    try:
        with journal:
            yield Run(stage, variant, journal, time.time())
            if earlier:
                journal.nest(earlier)
        if attempts:
            attempts.succeeded(journal.key)
    except BaseException:
        deliver(only=[journal.key], timeout=5)
        raise


def log_data(run: Run, prepared: Prepared, splits: Mapping[str, str]) -> None:
    """Name the data sets that a run used: {split: what for}."""
    for split, context in splits.items():
        source = str(prepared.root / f"{split}.npy")
        rows = {"num_rows": prepared.meta["splits"][split]["count"]}
        run.journal.dataset(split, prepared.fingerprint(split), source, profile=rows, context=context)
