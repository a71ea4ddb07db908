"""A limit for a whole request. An HTTP library's timeout begins anew with every byte that comes, so a server that sends
one now and then holds a request for as long as it likes.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

LEEWAY = 5.0  # seconds, in which the library's own timeout comes first: it ends the request, and says more
SLOWEST_UPLOAD = 50_000  # bytes a second; an upload slower than that counts as one that stands still


class Limited:
    """An MLflow client whose calls end: after `seconds` and some leeway, and what the files they send may take.

    A call that takes longer raises TimeoutError. What it asked for may have been done by the server, as after any other
    timeout; the thread that waits for the answer lives on until the connection ends, or the process does.
    """

    def __init__(self, client: Any, seconds: float) -> None:
        self.seconds = seconds
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            files = (Path(argument) for argument in arguments if isinstance(argument, str) and "artifact" in name)
            sent = sum(map(_size, files))
            seconds = self.seconds + LEEWAY + sent / SLOWEST_UPLOAD
            return within(seconds, lambda: method(*arguments, **options))

        return call


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call, or TimeoutError."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="mlflow-request", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():  # the call's own
            raise
        raise TimeoutError(f"timed out: no whole answer within {seconds:.0f} seconds") from None


def _size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
