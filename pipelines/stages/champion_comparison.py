"""The present champion once more, on the images that a new model was tested on."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from components.data.prepared import Prepared
from components.errors import UserError
from components.export import reference, training_image_ids
from components.files import read_array
from components.monitoring.champion_comparison import COLUMNS, common_rows, scores
from pipelines.comparison import score
from pipelines.config.params import Params
from pipelines.paths import stage_folder
from pipelines.tracking.fetch import fetch_model, version_of
from pipelines.tracking.journal import tracking_folder
from pipelines.tracking.promotion import CHAMPION, comparable


def compare_with_champion(params: Params, prepared: Prepared, best: str, score_name: str) -> dict[str, Any] | None:
    """What `promotion.decide` goes by where champion and candidate were scored on different data, or by other columns.

    Returns:
        `version` of the champion, and either the scores of `champion` and `candidate` on the same number of `images`,
        or why that is `impossible`. None where it is not needed, or the champion is not to be had.
    """
    name, root = params.tracking.registered_model, tracking_folder()
    export = stage_folder("export", best)  # there, because `report` depends on it
    try:
        champion = version_of(name, CHAMPION, root)
        if comparable({"score_name": score_name, "data_fingerprint": prepared.fingerprint()}, champion.tags):
            return None
        with TemporaryDirectory() as download:
            fetched = fetch_model(name, CHAMPION, Path(download), root)
            try:
                files = {
                    "champion": (fetched.model, fetched.reference),
                    "candidate": (export / "model.onnx", export / reference.FILE),
                }
                rows = common_rows(prepared, _known(fetched.known))
                found = {who: _score(params, scores(*its, prepared, rows)) for who, its in files.items()}
            except UserError as error:
                return {"version": fetched.version, "impossible": str(error)}
            return {"version": fetched.version, **found, "images": len(rows["test"])}
    except UserError:  # no champion yet, or MLflow is away: whoever decides will see
        return None


def _known(file: Path | None) -> np.ndarray:
    if file is None:
        raise UserError(f"it came without {training_image_ids.FILE}, which tells what it was trained on")
    try:
        return read_array(file, "uint64", 1)
    except UserError as error:
        raise UserError(f"its {training_image_ids.FILE} is damaged ({error})") from error


def _score(params: Params, numbers: dict[str, float]) -> float:
    if untold := [column for column in params.gate.score if column not in COLUMNS]:
        raise UserError(f"an exported file does not tell {', '.join(untold)}")
    return score(dict(numbers), params.gate.score)
