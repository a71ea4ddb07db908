"""What every stage does around its work: keep a journal for MLflow, write its results whole, leave a record."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from components.data.prepared import Prepared
from components.files import atomic_directory, write_json
from pipelines.config import Params
from pipelines.paths import stage_folder
from pipelines.tracking import Journal, deliver

RESULTS, RECORD = "results.json", "record.json"


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
        write_json(outputs.path / RECORD, record)
        # A curve ends with its result; a second point at step 0 would only spoil its chart.
        single = {k: v for k, v in (outputs.metrics | outputs.rounded).items() if k not in self.journal.curves}
        self.journal.metrics({**single, "stage_seconds": seconds})
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
def tracked(
    params: Params, stage: str, variant: str | None = None, settings: Mapping[str, Any] | None = None
) -> Iterator[Run]:
    """Run a stage's work under a journal that MLflow gets; `settings` are the sections that the stage depends on.

    The journal is delivered at once where the stage fails. Otherwise `pretrain` delivers its own while it trains, and
    `report` and `compare` deliver all: connecting to MLflow takes seconds, which every small stage would pay.
    """
    sections = {k: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in (settings or {}).items()}
    name = f"{variant} · {stage}" if variant else stage
    journal = Journal.start(
        stage, variant, name=name, params={"seed": params.seed, **sections}, experiment=params.tracking.experiment
    )
    try:
        with journal:
            yield Run(stage, variant, journal, time.time())
    except BaseException:
        deliver(only=[journal.key], timeout=5)
        raise


def log_data(run: Run, prepared: Prepared, splits: Mapping[str, str]) -> None:
    """Name the data sets that a run used: {split: what for}."""
    for split, context in splits.items():
        source = str(prepared.root / f"{split}.npy")
        rows = {"num_rows": len(prepared.images(split))}
        run.journal.dataset(split, prepared.fingerprint(split), source, profile=rows, context=context)
