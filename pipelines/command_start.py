"""When the command that the user typed began: a stage with older results was not run but taken from DVC's cache."""

import os
from contextlib import suppress
from functools import cache

import psutil

VARIABLE = "PIPELINE_STARTED"  # whoever runs stages one by one (a flow) sets it to seconds since 1970


@cache
def started() -> float:
    """Seconds since 1970: from the environment, else the start of the enclosing `dvc` process, else of this one."""
    if VARIABLE in os.environ:
        return float(os.environ[VARIABLE])
    process = psutil.Process()
    began = process.create_time()
    for parent in process.parents():
        with suppress(psutil.Error):  # another user's process need not tell
            if any(part.endswith("dvc") for part in parent.cmdline()[:2]):
                began = parent.create_time()
    return began
