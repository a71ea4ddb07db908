"""Every image's OOD scores in one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.files import atomic_file, read_table


def write_scores(scores: Mapping[str, Mapping[str, np.ndarray]], sets: Sequence[str], path: Path | str) -> None:
    """Write Parquet with a row an image: split (val, test or ood-NAME), index (its row there), a column a detector.

    `scores`: detector → `val`, `test` and each of the OOD `sets` → (N,).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits = {"val": "val", "test": "test", **{f"ood-{name}": name for name in sets}}
    counts = [len(next(iter(scores.values()))[name]) for name in splits.values()]
    columns = {
        "split": pa.array(np.repeat(list(splits), counts)).dictionary_encode(),
        "index": np.concatenate([np.arange(count) for count in counts]),
        **{detector: np.concatenate([of[name] for name in splits.values()]) for detector, of in scores.items()},
    }
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_scores(path: Path | str) -> dict[str, dict[str, np.ndarray]]:
    """What `write_scores` wrote: detector → `val`, `test` and each OOD set → (N,)."""
    table = read_table(path)
    split = np.asarray(table["split"].to_pylist())
    names = {str(name).removeprefix("ood-"): split == name for name in np.unique(split)}
    detectors = [column for column in table.column_names if column not in ("split", "index")]
    return {d: {name: table[d].to_numpy()[rows] for name, rows in names.items()} for d in detectors}
