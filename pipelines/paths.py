"""Where the stages of a run keep their files; dvc.yaml names the same places."""

from pathlib import Path

PREPARED = Path("data/prepared")
VALIDATION = Path("data/validation")
VALIDATION_FAILED = Path("data/validation-failed")  # the report of a violation
OUTPUTS = Path("outputs")
SCRATCH = Path(".scratch")  # resume files; outside DVC's outputs, which DVC deletes before a stage runs
LOCKS = SCRATCH / "locks"  # of the stages that are running


# folders under outputs/ that are no variant's
RESERVED = ("sources", "prepare", "validate", "baselines", "reports", "compare")


def stage_folder(stage: str, variant: str | None = None) -> Path:
    """Folder of a stage's results. Reports lie side by side, so that `compare` depends on all of them at once. What
    `distill` writes of a student stands where `pretrain` writes it of a variant: the stages behind read both alike."""
    if stage == "report" and variant:
        return OUTPUTS / "reports" / variant
    if stage == "distill":
        stage = "pretrain"
    return OUTPUTS / variant / stage if variant else OUTPUTS / stage
