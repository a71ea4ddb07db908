"""Reading what earlier stages left."""

from typing import Any

from components.files import read_json
from pipelines.paths import stage_folder
from pipelines.stages.stage_run import RECORD, RESULTS


def has_run(stage: str, variant: str | None = None) -> bool:
    """Whether a stage has left its results."""
    return (stage_folder(stage, variant) / RECORD).exists()


def metrics_of(stage: str, variant: str | None = None) -> dict[str, float]:
    """The numbers of a stage."""
    return dict(read_json(stage_folder(stage, variant) / RESULTS, "metrics"))


def constants_of(stage: str, variant: str | None = None) -> dict[str, Any]:
    """The constants that a stage's numbers depend on."""
    return dict(read_json(stage_folder(stage, variant) / RESULTS, "constants"))


def record_of(stage: str, variant: str | None = None) -> dict[str, Any]:
    """When a stage ran, and under which journal."""
    return dict(read_json(stage_folder(stage, variant) / RECORD))
