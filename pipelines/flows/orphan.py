"""End a flow run whose worker has died: nobody else would, and training would go on without anyone to cancel it.

A worker that is killed by SIGKILL, or by the kernel for want of memory, leaves the processes it started behind. Such a
process sends SIGTERM to itself here: Prefect reports the flow run as Crashed, and its stages end with it.
"""

import os
import signal
import threading
import time

UNDER_A_WORKER = "PREFECT__FLOW_RUN_ID"  # what a worker sets for the process of a flow run
POLL_SECONDS = 1.0
GRACE_SECONDS = 60.0  # to tell a server that may be away


def watch() -> None:
    """Start watching in the background, where this process was started by a worker."""
    if UNDER_A_WORKER in os.environ:
        threading.Thread(target=_end_with, args=[os.getppid()], name="orphan-watch", daemon=True).start()


def _end_with(parent: int) -> None:
    # polled, because PR_SET_PDEATHSIG exists on Linux alone and is sent when the parent's *thread* ends
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
