"""Attempts at a stage that came to nothing: killed, failed, or finished but not kept by DVC. Their runs in MLflow are
nested under that of the attempt which the model's report is made of.

    .tracking/attempts/STAGE/[VARIANT/]SETTINGS    run keys, a line each; in the folder where the stages run
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.files import atomic_file
from pipelines.tracking.journal import offline

FOLDER = Path(".tracking/attempts")  # not `tracking_folder()`: other copies of the project have models of their own


class Attempts:
    """The attempts at a stage with the same settings since its variant was last reported."""

    def __init__(self, stage: str, variant: str | None, settings: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._place = _folder(stage, variant) / digest

    def begin(self, run_key: str) -> list[str]:
        """Note an attempt; returns the earlier ones. None where journals are imported: of finished runs alone."""
        if offline():
            return []
        earlier = self._place.read_text().split() if self._place.exists() else []
        self._write([*earlier, run_key])
        return earlier

    def succeeded(self, run_key: str) -> None:
        """This attempt has taken the earlier ones under it. DVC may still not keep it."""
        if not offline():
            self._write([run_key])

    def _write(self, keys: Iterable[str]) -> None:
        with atomic_file(self._place) as temporary:
            temporary.write_text("\n".join(keys))


def forget(stage: str, variant: str | None) -> None:
    """What DVC kept of a stage is settled."""
    shutil.rmtree(_folder(stage, variant), ignore_errors=True)


def _folder(stage: str, variant: str | None) -> Path:
    return FOLDER / stage / (variant or "")
