"""Every image's OOD scores in one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.files import atomic_file


def write_scores(scores: Mapping[str, Mapping[str, np.ndarray]], sets: Sequence[str], path: Path | str) -> None:
    """Write Parquet with a row an image: split (test or ood-NAME), index (its row in the split), a column a detector.

    `scores`: detector → `test` and each of the OOD `sets` → (N,).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits = {"test": "test", **{f"ood-{name}": name for name in sets}}
    counts = [len(next(iter(scores.values()))[name]) for name in splits.values()]
    columns = {
        "split": pa.array(np.repeat(list(splits), counts)).dictionary_encode(),
        "index": np.concatenate([np.arange(count) for count in counts]),
        **{detector: np.concatenate([of[name] for name in splits.values()]) for detector, of in scores.items()},
    }
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
