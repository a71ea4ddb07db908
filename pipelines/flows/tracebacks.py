"""No traceback in Prefect's logs where a flow or a task has returned a failed state: its message says why."""

import logging


def leave_out() -> None:
    """Of the logs that the pages of flow runs show; may be repeated."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """A worker raises `FailedRun` for such a flow; for a task Prefect logs the absent exception, "NoneType: None"."""
    from prefect.exceptions import FailedRun  # whoever logs there has imported Prefect; `deploy` must not so early

    if record.exc_info and (record.exc_info[1] is None or isinstance(record.exc_info[1], FailedRun)):
        record.exc_info = None
    return True
