"""Preparing folders of small images, and what tests look at afterwards."""

import csv
from pathlib import Path
from typing import Any

import pytest

from components.data.config import DataConfig, Source
from components.data.prepare import prepare
from components.data.prepared import Prepared
from components.errors import UserError


def of_folder(folder: Path, **options: Any) -> DataConfig:
    settings: dict[str, Any] = {"image_size": 8, "channels": 3, "palette_colours": 8, "max_quarantined": 0.5}
    return DataConfig(**{"labelled": Source(folder=str(folder)), **settings, **options})


def run(config: DataConfig, out: Path, seed: int = 0, minimum_train: int = 2) -> Prepared:
    prepare(config, seed, out, minimum_train)
    return Prepared.open(out)


def quarantine(out: Path) -> dict[str, str]:
    """Reason by name of file (folder/name)."""
    with (out / "quarantine.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {"/".join(Path(row["path"]).parts[-2:]): row["reason"] for row in rows}


def fails(config: DataConfig, out: Path, minimum_train: int = 2) -> str:
    """The message of the error; nothing half-written may be left."""
    with pytest.raises(UserError) as caught:
        prepare(config, 0, out, minimum_train)
    assert not out.exists()
    assert not [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")]
    return str(caught.value)
