"""What the page needs of a variant, copied beside its report: the stage compare depends on reports alone."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.files import read_json, write_json
from pipelines.paths import stage_folder
from pipelines.stages.results import record_of
from pipelines.stages.stage_run import RESULTS

STAGES = "stages.json"
FILES = (  # of each stage; those that a variant does not have are left out
    ("pretrain", "samples.png"),
    ("pretrain", "completions.png"),
    ("probe", "confusion.png"),
    ("probe", "reliability.png"),
    ("probe", "few_label.png"),
    ("probe", "layers.csv"),
    ("ood", "scores.png"),
    ("ood", "roc.png"),
    ("ood", "map.png"),
    ("ood", "robustness.png"),
    ("ood", "hardest.parquet"),
    ("ood", "left_out.json"),
)


def gather(variant: str, stages: Sequence[str], shared: Sequence[str], folder: Path) -> None:
    """Fill a new folder with FILES, and `stages.json`: {stage: {metrics, constants, record}}."""
    folder.mkdir()
    for stage, name in FILES:
        if (source := stage_folder(stage, variant) / name).exists():
            shutil.copyfile(source, folder / name)
    owners = dict.fromkeys(stages, variant) | dict.fromkeys(shared)
    results = {
        stage: {**read_json(stage_folder(stage, owner) / RESULTS), "record": record_of(stage, owner)}
        for stage, owner in owners.items()
    }
    write_json(folder / STAGES, results)
