"""Decoding in many processes: in the order asked for, and with the same results whatever their number.

Each process is started anew instead of forked, because threads and a fork do not go together, and talks through its
standard input and output. It ends when its input does, so that none outlives a starter that was killed. Where one
dies, its images are given to another one by one: the one that kills it again is named and set aside.
"""

import os
import pickle
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import LifoQueue
from signal import Signals
from typing import IO, Any

import numpy as np

from components.cores import usable_cores
from components.data.decode import RejectedError, decode_noting
from components.data.decoded_cache import DecodedCache, keys_of
from components.data.image_store import Picture

ImageFile = bytes | Path | np.ndarray  # the content of a file, its place, or pixels
ROOT = Path(__file__).parents[2]
COMMAND = "import sys; sys.path.insert(0, sys.argv[1]); from components.data.decoders import work; work()"
MESSAGE_FILES = 64  # images in one message, at most
MESSAGE_BYTES = 8_000_000  # about as many bytes of them
PIPE_BYTES = 1 << 20
# Pillow keeps so many blocks of 16 MB instead of having the kernel clear new ones for every image
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PILLOW_BLOCKS_MAX": "8"}
AHEAD = 3  # messages that are on their way, for each process


class Decoders:
    """Processes that decode image files, started as they are needed; `close` ends them.

    `reading` holds the arguments of `decode`, `processes` how many there are (None: one a core). With a cache, images
    are taken from there and kept there.
    """

    def __init__(
        self, reading: Mapping[str, Any], processes: int | None = None, cache: DecodedCache | None = None
    ) -> None:
        self._reading, self._cache = dict(reading), cache
        self._count = processes or usable_cores()
        self._idle: LifoQueue[_Process] = LifoQueue()
        everyone = [_Process(dict(reading)) for _ in range(self._count)]
        for process in everyone:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(self._count)
        self.close = weakref.finalize(self, _close, everyone, self._threads)

    def decode(self, files: Iterable[ImageFile], count: int, finer: int | None = None) -> Iterator[Picture | str]:
        """Each image, or the reason why it can't be used. There are about `count` files.

        With `finer` each comes with this many pixels a side as well.
        """
        waiting: deque[Future[list[Picture | str]]] = deque()
        for message in _messages(files, min(MESSAGE_FILES, 1 + count // (4 * self._count))):
            waiting.append(self._threads.submit(self._answer, message, finer))
            if len(waiting) > AHEAD * self._count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    def _answer(self, files: list[ImageFile], finer: int | None) -> list[Picture | str]:
        if self._cache is None:
            return self._decoded(files, finer)
        keys = keys_of(files, self._reading, finer)
        found = self._cache.look_up(keys, self._reading["image_size"], self._reading["channels"], finer)
        places = [place for place, picture in enumerate(found) if picture is None]
        decoded = self._decoded([files[place] for place in places], finer) if places else []
        answers: dict[int, Picture | str] = dict(zip(places, decoded, strict=True))
        kept = ((keys[place], answer) for place, answer in answers.items())
        self._cache.keep([(key, answer) for key, answer in kept if key and isinstance(answer, Picture)])
        return [picture or answers[place] for place, picture in enumerate(found)]

    def _decoded(self, files: list[ImageFile], finer: int | None) -> list[Picture | str]:
        process = self._idle.get()
        try:
            return process.answer(files, finer)
        finally:
            self._idle.put(process)


class _Process:
    def __init__(self, reading: dict[str, Any]) -> None:
        self._reading = reading
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False

    def answer(self, files: list[ImageFile], finer: int | None) -> list[Picture | str]:
        """What becomes of each file, also where the process dies of one."""
        try:
            if self._running is None:
                self._start()
            return self._ask((files, finer))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            ended_by = self._end()
            if len(files) == 1:
                return [f"its decoder was ended by {ended_by}"]
            return [answer for file in files for answer in self.answer([file], finer)]

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._closed = True
        if self._running is not None:
            self._running.kill()

    def _start(self) -> None:
        if self._closed:
            raise RuntimeError("closed")
        self._running = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=PIPE_BYTES,
            env=os.environ | ENVIRONMENT,
            process_group=0,  # Ctrl-C is for the starter alone
        )
        try:
            self._ask(self._reading)
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"a process that decodes images could not start: {self._end()}") from error

    def _ask(self, question: Any) -> Any:
        assert self._running is not None
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        _send(question, self._running.stdin)
        return pickle.load(self._running.stdout)

    def _end(self) -> str:
        """Clear away a process that is dead or dying; says how it ended."""
        process, self._running = self._running, None
        assert process is not None
        with process:
            try:
                code = process.wait(timeout=1)
            except subprocess.TimeoutExpired:  # it has answered nonsense
                process.kill()
                code = process.wait()
        return Signals(-code).name if code < 0 else f"an exit with code {code}"


def _close(processes: list[_Process], threads: ThreadPoolExecutor) -> None:
    for process in processes:
        process.close()
    threads.shutdown(cancel_futures=True)
    for process in processes:
        if process._running is not None:
            process._end()


def _messages(files: Iterable[ImageFile], most: int) -> Iterator[list[ImageFile]]:
    message: list[ImageFile] = []
    size = 0
    for file in files:
        message.append(file)
        size += 0 if isinstance(file, Path) else len(file) if isinstance(file, bytes) else file.nbytes
        if len(message) >= most or size >= MESSAGE_BYTES:
            yield message
            message, size = [], 0
    if message:
        yield message


def _send(message: Any, stream: IO[bytes]) -> None:
    pickle.dump(message, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()


def work() -> None:
    """What each process does: answer until its input ends."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a decoder prints
    try:
        reading = pickle.load(questions)
        _send(None, answers)
        while True:
            files, finer = pickle.load(questions)
            _send([_attempt(file, reading, finer) for file in files], answers)
    except (EOFError, BrokenPipeError):
        os._exit(0)


def _attempt(file: ImageFile, reading: Mapping[str, Any], finer: int | None) -> Picture | str:
    try:
        picture = Picture(*decode_noting(file, **reading))
        if finer is None:
            return picture
        # from the file again, so that `pixels` are those that predictions are made of, byte for byte
        return picture._replace(finer=decode_noting(file, **{**reading, "image_size": finer}).pixels)
    except RejectedError as reason:
        return str(reason)
