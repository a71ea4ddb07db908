"""A table of a model's answers: one row a file, also for files that it cannot take."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from components.errors import UserError
from components.files import atomic_file
from components.monitoring.incoming import IncomingFile
from components.monitoring.scoring import Scorer, Unusable

WRITERS = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter}


def write_predictions(
    scorer: Scorer,
    files: Sequence[IncomingFile],
    out: Path,
    batch_size: int = 256,
    told: Callable[[int], object] = lambda done: None,
) -> list[Unusable]:
    """Write a CSV or Parquet file, by the suffix of `out`, and return the files that could not be used.

    Columns: `path`, `predicted_class`, `ood_score` (float32), `is_ood`, one `probability: CLASS` (float32) a class in
    the model's order, and `problem`, the reason where a file could not be used (all else is null then). Rows are in
    the order of `files`. At most `batch_size` images are in memory together; `told` gets the number of files done.
    Raises UserError where the suffix is another, or no file can be used; nothing is written then.
    """
    if out.suffix not in WRITERS:
        raise UserError(f"{out}: the table's name must end with {' or '.join(WRITERS)}.")
    classes = [f"probability: {name}" for name in scorer.reference.classes]
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("predicted_class", pa.string()),
            ("ood_score", pa.float32()),
            ("is_ood", pa.bool_()),
            *((name, pa.float32()) for name in classes),
            ("problem", pa.string()),
        ]
    )
    unusable: list[Unusable] = []
    with atomic_file(out) as temporary, WRITERS[out.suffix](temporary, schema) as writer:
        for start in range(0, len(files), batch_size):
            batch, problems = files[start : start + batch_size], list[Unusable]()
            rows: dict[str, dict[str, object]] = {}
            for names, _, answers in scorer.answers(batch, batch_size, problems):
                columns = {
                    "path": names,
                    "predicted_class": scorer.reference.classes[answers["probabilities"].argmax(1)],
                    "ood_score": answers["ood_score"],
                    "is_ood": answers["is_ood"],
                    **dict(zip(classes, answers["probabilities"].T, strict=True)),
                }
                rows |= {name: {k: v[i] for k, v in columns.items()} for i, name in enumerate(names)}
            rows |= {path: {"path": path, "problem": reason} for path, reason in problems}
            writer.write_table(pa.Table.from_pylist([rows[file.name] for file in batch], schema))
            unusable += problems
            told(start + len(batch))
        if len(unusable) == len(files):
            reasons = f": {unusable[0].path}: {unusable[0].reason}" if unusable else ""
            raise UserError(f"none of {len(files)} files is an image that the model takes{reasons}. {scorer.takes}.")
    return unusable
