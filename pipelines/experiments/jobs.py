"""The same work in several processes of this machine, which end with the one that started them."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from components.cores import usable_cores
from components.errors import UserError


def side_by_side(jobs: int, work: Callable[..., Any], *arguments: Any) -> None:
    """Call `work(*arguments)` in so many processes, each with its share of the cores, and wait for all of them.

    A UserError is printed. Whoever calls sees from what `work` has left how far it came.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // jobs)))  # read when they start
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(work, *arguments)) for _ in range(jobs)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:  # the terminal has told them, too
        for process in processes:
            process.join()
        raise


def _work(work: Callable[..., Any], *arguments: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(*arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # not SIGINT, which what runs in the background may ignore
