"""Runs that a second try repeats: their key comes from all that the stage was given, so that MLflow shows them once.

Such a run's numbers are decided by its inputs. So a stage that was killed, wherever it was, and runs again finds the
journal and the MLflow run of its earlier try. Every other stage is a new run each time: it measures anew.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from pipelines.tracking import spool


@dataclass(frozen=True)
class Inputs:
    """All that decides a run's numbers, and when the last of it was there (seconds since 1970).

    The run's metrics bear that time: MLflow keeps one point of two that are equal in name, step, time and value.
    """

    content: Mapping[str, Any]  # as JSON has it
    time: float

    def key(self, label: str, *more: Any) -> str:
        """The run's key; `more` is what decides it besides."""
        text = json.dumps([label, self.content, *more], sort_keys=True, allow_nan=True)
        return f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def forget_earlier_try(key: str, root: Path, wait: float = 60.0) -> None:
    """Remove a dead earlier try's journal, and its promotion's result: the one that begins now does all of it again.

    Raises:
        UserError: the earlier try is still at work, or its journal is still being sent after `wait` seconds.
    """
    folder = root / "journals" / key
    if folder.exists():
        if spool.is_written(folder):
            raise UserError(f"{key}: another process is at work on the same. Wait for it to end, then run again.")
        with spool.delivering(folder, wait) as mine:
            if mine:
                spool.remove(folder)
            elif folder.exists():
                raise UserError(f"{key}: another process is sending it to MLflow. Run again once that has ended.")
    (root / "promotions" / f"{key}.json").unlink(missing_ok=True)
