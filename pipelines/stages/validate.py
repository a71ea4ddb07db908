"""validate: Great Expectations guards the prepared data set; a violation stops the run before it costs GPU hours."""

from components.data.prepared import Prepared
from pipelines.config.params import Params
from pipelines.paths import PREPARED, VALIDATION
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import log_data, stage_run
from pipelines.validation.prepared_data import validate

STAGE = Stage(does="expectations on the data", per="run", after=("prepare",), in_report="run")


def run(params: Params) -> None:
    """Write data/validation, and outputs/validate."""
    with stage_run(params, "validate", settings={"data": params.data}) as stage:
        log_data(stage, Prepared.open(PREPARED), {"train": "validation"})
        summary = validate(PREPARED, VALIDATION, params.data)
        stage.journal.artifact(VALIDATION / "summary.md")
        met = sum(expectation["success"] for expectation in summary["expectations"])
        with stage.folder() as out:
            out.metrics = {"expectations": len(summary["expectations"]), "expectations_met": met}
            out.constants = {**summary["constants"], "data_fingerprint": summary["fingerprint"]}
    print(f"validated: {met} expectations hold; see {VALIDATION}/summary.md")
