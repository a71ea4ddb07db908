"""End a process whose starter has died: nobody else would, and training would go on without anyone to cancel it.

A worker or a DVC that is killed by SIGKILL, or by the kernel for want of memory, leaves the processes behind that it
started. Such a process sends SIGTERM to itself here: Prefect reports a flow run as Crashed, and its stages end with it;
a stage ends at once, and its next try clears away what it left half done.
"""

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

UNDER_A_WORKER = "PREFECT__FLOW_RUN_ID"  # what a worker sets for the process of a flow run
UNDER_DVC = "DVC_STAGE"  # what DVC sets for the command of a stage
POLL_SECONDS = 0.5
GRACE_SECONDS = 60.0  # to tell a server that may be away


def watch_worker() -> None:
    """Start watching in the background, where this process was started by a worker."""
    if UNDER_A_WORKER in os.environ:
        import psutil

        _watch(psutil.Process())


def watch_dvc() -> None:
    """Start watching in the background, where this process belongs to a stage that DVC runs.

    A shell may stand between the two, and outlive DVC: the first ancestor that lacks the stage's name is DVC itself.
    """
    stage = os.environ.get(UNDER_DVC)
    if stage is None:
        return
    import psutil

    below = psutil.Process()
    try:
        while (parent := below.parent()) is not None and parent.environ().get(UNDER_DVC) == stage:
            below = parent
        if _is_reaper(parent):  # DVC died before this line was reached
            os.kill(os.getpid(), signal.SIGTERM)
    except psutil.Error:  # it has ended this moment, or is another user's
        pass
    _watch(below)


def _is_reaper(parent: "psutil.Process | None") -> bool:
    """Whether this process takes in orphans, and is not DVC as the first process of a container."""
    if parent is None or (parent.pid != 1 and parent.name() != "systemd"):
        return False
    return not any("dvc" in word or "repro" in word for word in parent.cmdline())


def _watch(child: "psutil.Process") -> None:
    threading.Thread(target=_end_without_parent, args=[child, child.ppid()], name="orphan-watch", daemon=True).start()


def _end_without_parent(child: "psutil.Process", parent: int) -> None:
    # polled, because PR_SET_PDEATHSIG exists on Linux alone and is sent when the parent's *thread* ends
    while _parent_of(child) == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _parent_of(child: "psutil.Process") -> int | None:
    import psutil

    try:
        return child.ppid()
    except psutil.Error:
        return None
