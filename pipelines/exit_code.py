"""How every command ends: its exit code, and one line on stderr for a mistake of the user's."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from components.errors import ConfigError, KilledError, UserError, os_errors_explained

INTERRUPTED = 130


def exit_code(command: Callable[[], int | None]) -> int:
    """Run a command; returns what it does (None: 0), 1 for a user's mistake, 2 for one in the configuration, 130 after
    Ctrl-C."""
    try:
        with os_errors_explained():
            return command() or 0
    except UserError as error:
        print(f"{'killed' if isinstance(error, KilledError) else 'error'}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def end(code: int) -> NoReturn:
    """End this process. Everything is written and closed; the tear-down of torch and MLflow would take another second,
    and a request to a server that was given up waits for its answer still."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
