"""What went wrong through no fault of the code: told in one message, without a traceback."""

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class UserError(Exception):
    """A mistake in the input. The message names the file or key, what was expected and what to do."""


class MissingFileError(UserError):
    """A file that an earlier stage writes is not there."""

    def __init__(self, path: Path | str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = Path(path)


class ConfigError(UserError):
    """A mistake in the configuration (exit code 2; every other user error exits with 1)."""


class KilledError(UserError):
    """A process was ended from outside: the same command may succeed when it is given again."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'steps'` for a mistyped word, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}" if close else ""


@contextmanager
def os_errors_explained() -> Iterator[None]:
    """Raise a UserError in place of an OSError that names a file, or says that the disk is full.

    The last line of defence, around a whole command: where the code can say more, it says it itself.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        if error.errno in DISK_FULL:
            raise UserError(f"{where}{error.strerror}. Free some space and run again.") from error
        advice = " It must be writable for this user." if error.errno in NOT_WRITABLE else ""
        raise UserError(f"{where}{error.strerror}.{advice} Put that right and run again.") from error
