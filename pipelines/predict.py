"""A model's answers on a folder of images, as one table. Needs no server and compares with no earlier images."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from components.data.sources.file_kinds import others_told
from components.errors import UserError
from components.export.reference import FILE as REFERENCE
from components.monitoring.incoming import list_incoming
from components.monitoring.predictions import write_predictions
from components.monitoring.scoring import Scorer
from pipelines.config.params import load_params
from pipelines.tracking.fetch import fetch_model
from pipelines.tracking.journal import tracking_folder

MODEL = "model.onnx"


def predict(images: Path, out: Path, model: str = "champion") -> str:
    """Write the table `out` (.csv or .parquet, see `write_predictions`) and return one line about it.

    `model` is the folder of an export (outputs/hybrid/export), or the alias or number of a version of the registered
    model that params.yaml names.
    Raises UserError where the folder holds no image, or the model is not to be had.
    """
    files, others = list_incoming(images)
    if not files:
        holds = f"holds no image ({others_told(others)})" if others else "is empty"
        raise UserError(f"{images} {holds}. Give a folder of images.")
    if out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"{out} lies inside {images}: the next run would take it for an image.")
    with _opened(model) as (scorer, shown), tqdm(total=len(files), unit=" images", disable=None) as bar:
        unusable = write_predictions(scorer, files, out, told=lambda done: bar.update(done - bar.n))
    left_alone = f"; {others_told(others)}" if others else ""
    problems = f", {len(unusable):,} of them could not be used (column `problem`)" if unusable else ""
    return f"{shown}: {len(files):,} files{problems} → {out}{left_alone}"


@contextmanager
def _opened(model: str) -> Iterator[tuple[Scorer, str]]:
    """The model, and its name for messages."""
    folder = Path(model)
    if folder.is_dir():
        if missing := [name for name in (MODEL, REFERENCE) if not (folder / name).exists()]:
            raise UserError(
                f"{folder} holds no {' and no '.join(missing)}. Give the folder that the export stage writes."
            )
        yield Scorer(folder / MODEL, folder / REFERENCE), str(folder / MODEL)
    else:
        with tempfile.TemporaryDirectory() as download:
            name = load_params().tracking.registered_model
            fetched = fetch_model(name, model, Path(download), tracking_folder())
            yield Scorer(fetched.model, fetched.reference), str(fetched)
