"""Tables that are left as CSV."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from components.files import atomic_file


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write `rows` under `header`, floats with six digits."""
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
