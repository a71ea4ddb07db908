"""`python -m pipelines.repro [STAGE …]`: `dvc repro`, in turns with all such commands and flow runs of the project.

DVC itself refuses two at a time that need the same files, even where it was told to wait for its lock.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from components.errors import DISK_FULL, ConfigError, UserError, os_errors_explained
from components.locks import Holder, locked
from pipelines import rwlock
from pipelines.command_start import VARIABLE
from pipelines.config.params import load_params

LOCK = Path(".dvc/tmp/project.lock")
POLL_SECONDS = 0.5
INTERRUPTED = 130
BEGAN = time.time()


@contextmanager
def alone_in(root: Path, say: Callable[[str], None], note: str = "") -> Iterator[None]:
    """Hold the project, for which other holders wait; the kernel frees it however this process ends."""

    def wait(holder: Holder) -> None:
        say(f"Waiting for {holder}, which is at work in {root.resolve()}")

    with locked(root / LOCK, wait, note=note):
        rwlock.clear_dead(root)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a stage or DVC failed, 2 for a mistake in params.yaml, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.repro", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="STAGE", help="with all that it needs; all stages if there are none"
    )
    parser.add_argument("--force", action="store_true", help="run even what is up to date")
    parser.add_argument("--single-item", action="store_true", help="the stages alone, without what they need")
    parser.add_argument("--held", action="store_true", help="the caller holds the project")
    options = parser.parse_args(arguments)
    sys.argv = ["python -m pipelines.repro", *options.targets]  # as DVC names this process to others
    os.environ.setdefault(VARIABLE, str(time.time()))
    try:
        with os_errors_explained():
            if not Path(".dvc").is_dir():
                raise UserError(
                    f"{Path().resolve()}: no DVC project here (.dvc is missing). Go to the project's folder."
                )
            if options.held:
                return _reproduce(options)
            load_params()
            with alone_in(Path(), _say):
                return _reproduce(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def _reproduce(options: argparse.Namespace) -> int:
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
                repo.reproduce(options.targets, single_item=options.single_item, force=options.force)
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


def end(code: int) -> NoReturn:
    """End this process. Everything is written; the interpreter's tear-down would take another while."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main())
