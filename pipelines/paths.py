"""Where the stages of a run keep their files; dvc.yaml names the same places."""

from pathlib import Path

from pipelines.stages.registry import all_stages

PREPARED = Path("data/prepared")
VALIDATION = Path("data/validation")
VALIDATION_FAILED = Path("data/validation-failed")  # the report of a violation
OUTPUTS = Path("outputs")
SCRATCH = Path(".scratch")  # resume files; outside DVC's outputs, which DVC deletes before a stage runs
LOCKS = SCRATCH / "locks"  # of the stages that are running


def reserved() -> tuple[str, ...]:
    """Folders under outputs/ that are no variant's."""
    return (*(name for name, stage in all_stages().items() if stage.per == "run"), "reports")


def stage_folder(stage: str, variant: str | None = None) -> Path:
    """Folder of a stage's results. Reports lie side by side, so that `compare` depends on all of them at once. What
    `distill` writes of a student stands where `pretrain` writes it of a variant: the stages behind read both alike."""
    if stage == "report" and variant:
        return OUTPUTS / "reports" / variant
    if stage == "distill":
        stage = "pretrain"
    return OUTPUTS / variant / stage if variant else OUTPUTS / stage
