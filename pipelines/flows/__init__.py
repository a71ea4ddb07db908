"""Prefect flows over the DAG in dvc.yaml: reproduce, sweep, retrain and monitor. A flow run ends with its worker."""

import os

from pipelines import parent_watchdog
from pipelines.flows import tracebacks

# read when prefect is imported: nothing phones home, and a slow machine may take its time to start a local server
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "60")
# the local server is stopped amid its own bookkeeping and would end every flow with its tracebacks
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")

parent_watchdog.watch_worker()
tracebacks.leave_out()
