import logging

import pytest
from prefect.exceptions import FailedRun

import pipelines.flows  # noqa: F401  importing it is what a flow does first


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.task_runs"])
@pytest.mark.parametrize(("error", "shown"), [(None, False), (FailedRun("no image"), False), (ValueError("bug"), True)])
def test_only_real_exceptions_have_a_traceback(name, error, shown):
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        logger.error("failed", exc_info=(type(error), error, None) if error else True)
    finally:
        logger.removeHandler(handler)
    assert [bool(record.exc_info) for record in records] == [shown]
