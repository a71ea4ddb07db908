"""Starting the processes that share a batch, and ending them together.

What torchrun starts its workers with (`torch.multiprocessing`), in the environment that torchrun gives them. Its
supervisor would add restarts, which the resume file makes needless, and its own handling of signals, which would hide
from the caller that it was interrupted.
"""

import logging
import mmap
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

import numpy as np
import torch
from torch import distributed as dist
from torch import multiprocessing

from components.errors import ConfigError, KilledError, UserError
from components.training.config import TrainingConfig
from components.training.device import choose_device
from components.training.distributed import Ranks

OnMetrics = Callable[[int, dict[str, float]], None]
POLL_SECONDS = 0.2
PATIENCE = timedelta(hours=1)  # of a process that waits for the others, of which one may be evaluating
KINDS: dict[str, type[UserError]] = {"UserError": UserError, "ConfigError": ConfigError}


def launch(
    work: Callable[..., None], arguments: tuple[Any, ...], config: TrainingConfig, on_metrics: OnMetrics
) -> None:
    """Run `work(ranks, on_metrics, *arguments)` in `config.processes` processes on this machine and wait for them.

    Metrics that the leading process reports are handed on here. No process outlives this call, nor the caller.

    Raises:
        UserError: a process raised it; a KilledError where one was killed.
    """
    size = config.processes
    device = choose_device(config)
    if device.type == "cuda" and torch.cuda.device_count() < size:
        raise ConfigError(
            f"training.processes: {size}, but there are only {torch.cuda.device_count()} GPUs here, and each process "
            f"needs one. Lower it to {torch.cuda.device_count()} or less."
        )
    # a pipe for each: a lock that they shared would stay locked if its holder were killed
    pipes = [multiprocessing.get_context("spawn").Pipe(duplex=False) for _ in range(size)]
    inbox, outbox = zip(*pipes, strict=True)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # who was ended is told here, once
    with tempfile.TemporaryDirectory() as folder:
        threads = max(1, torch.get_num_threads() // size)
        where = (size, device.type, threads, f"file://{folder}/rendezvous")
        workers = multiprocessing.start_processes(
            _work, (work, arguments, where, outbox), size, join=False, start_method="spawn"
        )
        try:
            ended = False
            while not ended:
                ended = workers.join(POLL_SECONDS)
                _hand_on(inbox, on_metrics)
        except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException) as error:
            _hand_on(inbox, on_metrics)  # raises what a process told
            _explain(error, workers.processes)
        finally:
            for process in workers.processes:
                process.kill()
                process.join()


def _same_file(array: Any) -> Any:
    """How a memory-mapped array goes over to another process: by the name of its file, not by its content."""
    if not isinstance(array.base, mmap.mmap) or not array.flags.c_contiguous:  # a part of one
        return np.asarray(array).__reduce__()
    return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape)


ForkingPickler.register(np.memmap, _same_file)


def _work(
    rank: int,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
    where: tuple[int, str, int, str],
    outbox: Sequence[Connection],
) -> None:
    size, device, threads, rendezvous = where
    told = outbox[rank]
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(rank)
    elif sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nothing but this machine
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, rendezvous, PATIENCE, size, rank)
    try:
        work(Ranks(rank, size), lambda step, metrics: told.send((step, metrics)), *arguments)
    except UserError as error:
        told.send((type(error).__name__, str(error)))
        sys.exit(1)  # at once: the others may be waiting for this one
    dist.destroy_process_group()


def _hand_on(inbox: Sequence[Connection], on_metrics: OnMetrics) -> None:
    for told in inbox:
        while told.poll():
            first, second = told.recv()
            if isinstance(first, str):
                raise KINDS[first](second)
            on_metrics(first, second)


def _explain(error: Exception, processes: list[Any]) -> NoReturn:
    """Tell which process a signal ended: the others fail because of it, and may have been noticed first."""
    codes = [process.exitcode or 0 for process in processes]
    if getattr(error, "signal_name", None):
        first = error.error_index  # type: ignore[attr-defined]
    else:  # SIGTERM is what the rest get
        first = next((rank for rank, code in enumerate(codes) if code < 0 and -code != signal.SIGTERM), None)
    if first is None:
        raise error
    raise KilledError(
        f"training process {first} of {len(codes)} was ended by {signal.Signals(-codes[first]).name}, and the run with "
        "it. Where nobody did that, the machine ran out of memory: lower training.micro_batch_size. Run again: "
        "training goes on from its last resume file."
    ) from None
