"""`python -m pipelines repro [STAGE …]`: `dvc repro`, in turns with all such commands and flow runs of the project.

DVC itself refuses two at a time that need the same files, even where it was told to wait for its lock.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from components.errors import DISK_FULL, UserError
from components.locks import Holder, locked
from pipelines import rwlock
from pipelines.command_start import VARIABLE
from pipelines.config.params import load_params
from pipelines.exit_code import INTERRUPTED

LOCK = Path(".dvc/tmp/project.lock")
POLL_SECONDS = 0.5
BEGAN = time.time()


@contextmanager
def alone_in(root: Path, say: Callable[[str], None], note: str = "") -> Iterator[None]:
    """Hold the project, for which other holders wait; the kernel frees it however this process ends."""

    def wait(holder: Holder) -> None:
        say(f"Waiting for {holder}, which is at work in {root.resolve()}")

    with locked(root / LOCK, wait, note=note):
        rwlock.clear_dead(root)
        yield


def repro(targets: Sequence[str] = (), force: bool = False, single_item: bool = False, held: bool = False) -> int:
    """Returns the exit code: 0, 1 where a stage or DVC failed, 130 where a stage was interrupted.

    Args:
        targets: stages, with all that they need; all stages if there are none.
        force: run even what is up to date.
        single_item: the stages alone, without what they need.
        held: the caller holds the project.

    Raises:
        UserError: no project is here, params.yaml is wrong, or the disk is full.
    """
    sys.argv = ["python -m pipelines repro", *targets]  # as DVC names this process to others
    os.environ.setdefault(VARIABLE, str(time.time()))
    if not Path(".dvc").is_dir():
        raise UserError(f"{Path().resolve()}: no DVC project here (.dvc is missing). Go to the project's folder.")
    if held:
        return _reproduce(targets, force, single_item)
    load_params()
    with alone_in(Path(), _say):
        return _reproduce(targets, force, single_item)


def _reproduce(targets: Sequence[str], force: bool, single_item: bool) -> int:
    # imported only now: it takes half a second, in which a mistake in params.yaml is told and the project's turn comes
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError
    from dvc.ui import ui

    ui.enable()
    logging.getLogger("dvc_data.hashfile.transfer").addFilter(_stop_at_a_full_disk)
    while True:
        repo = Repo(_wait_for_lock=True)
        try:
            with repo:
                repo.reproduce(list(targets), single_item=single_item, force=force)
            return 0
        except (DvcException, OSError) as error:
            causes = list(_causes(error))
            if any(isinstance(cause, LockError) for cause in causes) and (others := _others()):
                _wait_for(others)
                continue
            if any(isinstance(cause, OSError) and cause.errno in DISK_FULL for cause in causes):
                raise UserError(_disk_full(causes, Path(repo.cache.local_cache_dir))) from error
            print(f"ERROR: {': '.join(str(cause) for cause in causes)}", file=sys.stderr)
            interrupted = any(isinstance(c, StageCmdFailedError) and str(c).endswith(f" {INTERRUPTED}") for c in causes)
            return INTERRUPTED if interrupted else 1


def _others() -> list[Holder]:
    return [holder for holder in rwlock.at_work(Path()) if holder.pid != os.getpid()]


def _wait_for(others: list[Holder]) -> None:
    """Wait for DVC commands that were not started by this project's own; they hold no lock while a stage runs."""
    _say(f"Waiting for {', '.join(map(str, others))}, which is at work in {Path().resolve()}")
    while set(others) & set(_others()):
        time.sleep(POLL_SECONDS)


def _stop_at_a_full_disk(record: logging.LogRecord) -> bool:
    """DVC tells of each file that its cache has no room for, and goes on. Raised here, the error ends the stage."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        raise error
    return True


def _disk_full(causes: list[BaseException], cache: Path) -> str:
    """Where there is no room, what is whole and what is not, and what to do."""
    full = next(cause for cause in causes if isinstance(cause, OSError) and cause.errno in DISK_FULL)
    unfinished = sorted(path for path in cache.rglob(".*.tmp") if path.stat().st_mtime >= BEGAN)
    left = ""
    if unfinished:
        more = f" and {len(unfinished) - 1} more" if len(unfinished) > 1 else ""
        left = f" DVC left unfinished files there, which nothing needs: {unfinished[0]}{more}; delete them."
    return (
        f"{causes[0]}: DVC's cache ({cache}) has no room for the results ({full.strerror}). They are whole in the "
        "project's folder, but not recorded: the stage runs again next time. Free some space (`dvc gc --workspace` "
        f"removes what no present file needs) and run again.{left}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
