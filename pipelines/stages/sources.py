"""sources: what image sets and weights to start from hold, so that changes are noticed; runs every time, in no time."""

import shutil
from pathlib import Path

from components.data.sources.image_files import list_sources
from components.errors import UserError
from components.files import atomic_directory, file_digest, write_json
from pipelines.config.params import Params
from pipelines.paths import VALIDATION_FAILED, stage_folder
from pipelines.stages.registry import Stage

STAGE = Stage(does="the files of each source, counted", per="run")


def run(params: Params) -> None:
    """Write outputs/sources: the same bytes as long as no file comes, goes or changes. Nothing is told to MLflow."""
    listing = list_sources(params.data)
    weights = {name: params.weights_of(name) for name in params.variants}
    digests = {name: None if file is None else _digest(name, file) for name, file in weights.items()}
    with atomic_directory(stage_folder("sources")) as folder:
        write_json(folder / "listing.json", listing)
        (folder / "start").mkdir()
        for name, digest in digests.items():
            write_json(folder / f"start/{name}.json", {"sha256": digest})
    # of an earlier run: where the data is repaired, validate may come from DVC's cache and could not remove it
    shutil.rmtree(VALIDATION_FAILED, ignore_errors=True)


def _digest(variant: str, file: Path) -> str:
    if not file.is_file():
        raise UserError(
            f"variants.{variant}: there is no file {file}, which training.start_from or encoder.weights names. A run "
            "leaves its weights in outputs/VARIANT/pretrain/model.safetensors: copy them, the next run removes them."
        )
    return file_digest(file)
