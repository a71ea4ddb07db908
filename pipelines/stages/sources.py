"""sources: what the configured sources hold, so that new images are noticed; runs every time, and in no time."""

import shutil

from components.data.sources.image_files import list_sources
from components.files import atomic_directory, write_json
from pipelines.config.params import Params
from pipelines.paths import VALIDATION_FAILED, stage_folder
from pipelines.stages.registry import Stage

STAGE = Stage(does="the files of each source, counted", per="run")


def run(params: Params) -> None:
    """Write outputs/sources: the same bytes as long as no file comes, goes or changes. Nothing is told to MLflow."""
    listing = list_sources(params.data)
    with atomic_directory(stage_folder("sources")) as folder:
        write_json(folder / "listing.json", listing)
    # of an earlier run: where the data is repaired, validate may come from DVC's cache and could not remove it
    shutil.rmtree(VALIDATION_FAILED, ignore_errors=True)
