"""`python watchdog.py COMMAND …`: run a command that ends when this process's standard input does.

The one who starts it holds the other end of that pipe, so closing it, or dying, be it of SIGKILL, ends the command.
All of the command's process group ends: DVC, its shell and the training below. Standard library only, to start fast.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

GRACE_SECONDS = 10.0


def main() -> int:
    """Returns the command's exit code, 128 + n where signal n ended it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Whoever sends these to this process, the pipe decides. Not SIG_IGN, which the command would inherit.
        signal.signal(number, lambda *_: None)
    # a session of its own, so that the group holds the command and what it starts, and nothing else
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_the_pipe, args=[command.pid], daemon=True).start()
    os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet: the group's number is still its own
    _signal_group(command.pid, signal.SIGKILL)  # what a stage left running in the background
    code = command.wait()
    return code if code >= 0 else 128 - code


def _end_with_the_pipe(group: int) -> None:
    sys.stdin.buffer.read()
    # As Ctrl-C does: DVC waits for the stage, records nothing and frees its locks. SIGTERM would end DVC at once,
    # with the locks held and the stage running on.
    _signal_group(group, signal.SIGINT)
    time.sleep(GRACE_SECONDS)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    os._exit(main())
