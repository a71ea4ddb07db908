"""Two exported models on the same images, where each was tested on images of its own time.

With every new image the splits are drawn anew, so that today's test images were partly yesterday's training images. A
comparison is fair on those that neither model knows.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from components.data.prepared import Prepared
from components.errors import UserError
from components.evaluation.ood.metrics import auroc
from components.export.reference import Reference
from components.export.session import INPUT, open_session, run_session
from components.export.training_image_ids import unknown_rows

COLUMNS = ("linear_accuracy", "near_ood_auroc", "far_ood_auroc")  # of the comparison: those that an exported file tells
FEWEST = 50  # images of a set
BATCH = 256


def common_rows(prepared: Prepared, known: np.ndarray) -> dict[str, np.ndarray]:
    """Split → rows of the test split and of each OOD set that a model which knows these images has not seen.

    Raises:
        UserError: of one of them fewer than FEWEST are left.
    """
    rows = {split: unknown_rows(prepared, split, known) for split in ("test", *(f"ood-{n}" for n in prepared.ood))}
    for split, left in rows.items():
        if len(left) < FEWEST:
            raise UserError(f"it knows all but {len(left)} images of {split}, and {FEWEST} are wanted")
    return rows


def scores(model: Path, reference: Path, prepared: Prepared, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """COLUMNS as the stages probe and ood measure them, by the answers of an ONNX file, on these rows of the splits.

    A class that the model does not know counts as mistaken.

    Raises:
        UserError: the files are not what the export stage writes, or take other images.
    """
    classes = Reference.load(reference).classes
    found = {split: _answers(model, prepared.images(split), of_split) for split, of_split in rows.items()}
    predicted = classes[found["test"]["probabilities"].argmax(1)]
    truth = np.array(prepared.classes)[prepared.labels("test")[rows["test"]]]
    numbers = {"linear_accuracy": float((predicted == truth).mean())}
    for distance in ("near", "far"):
        aurocs = [
            auroc(found["test"]["ood_score"], found[f"ood-{name}"]["ood_score"])
            for name, its in prepared.ood.items()
            if its == distance
        ]
        if aurocs:
            numbers[f"{distance}_ood_auroc"] = float(np.mean(aurocs))
    return numbers


def _answers(model: Path, images: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    try:
        session = open_session(model)
        takes = {value.name: tuple(value.shape[1:]) for value in session.get_inputs()}
    except Exception as error:  # onnxruntime has a dozen kinds
        raise UserError(f"ONNX Runtime can't open its file ({' '.join(str(error).split())[:200]})") from error
    if takes != {INPUT: images.shape[1:]}:
        raise UserError(f"it takes images of shape {takes.get(INPUT)}, these have {images.shape[1:]}")
    parts = [run_session(session, images[rows[start : start + BATCH]]) for start in range(0, len(rows), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("probabilities", "ood_score")}
