"""What the benchmarks share: contenders that take turns, Markdown tables, JSON that says how its numbers were made."""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch

from components.errors import UserError
from components.files import write_json
from components.training.device import describe_hardware

Value = float | int | str | None
Row = Mapping[str, Value]


class Steps(Protocol):
    """A contender that trains."""

    def train(self, steps: int) -> None: ...


def parser_for(documentation: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """A command line with what every benchmark takes; `rounds` is the default of those that take turns."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds, help="turns of every contender; tables show medians")
    parser.add_argument("--json", type=Path, help="also write the numbers, and how they were made, to this file")
    return parser


def add_shape(parser: argparse.ArgumentParser, batch_size: int | None = None) -> None:
    """The model's shape and, with a default, one batch size."""
    sizes = ["tiny", "small", "base"]
    parser.add_argument("--size", choices=sizes, help="of the model; default: that of presets/cifar10-cpu.yaml")
    parser.add_argument("--patch-size", type=int, default=4)
    if batch_size:
        parser.add_argument("--batch-size", type=int, default=batch_size)


def take_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What every contender, already warm, returned in each round.

    One after the other in each round, so that a slow minute of the machine meets them all; every second round in
    reverse, so that a machine that slows down or warms up favours none.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            found[name].append(contenders[name]())
    return found


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in found.items()}


def seconds(call: Callable[[], object], times: int = 1) -> float:
    """Duration of one call, of so many one after the other."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def rate_of(call: Callable[[], object], count: int, turn_seconds: float) -> Callable[[], float]:
    """A function that calls for about so long, once at least, and returns how many a second that is at `count` a
    call."""
    call()
    times = max(1, round(turn_seconds / seconds(call)))
    return lambda: count / seconds(call, times)


def turn_of(contender: Steps, turn_seconds: float) -> Callable[[], float]:
    """A function that trains for about so long, a step at least, and returns the seconds of one step."""
    contender.train(2)  # the first steps allocate, and compile
    steps = max(1, round(turn_seconds / seconds(lambda: contender.train(1))))
    return lambda: seconds(lambda: contender.train(steps)) / steps


def markdown(rows: Iterable[Row]) -> str:
    """Rows as a table; numbers to the right. A row may lack a column."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numbers = [not any(isinstance(row.get(column), str) for row in rows) for column in columns]
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---:" if right else "---" for right in numbers) + "|"]
    lines += ["| " + " | ".join(_shown(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _shown(value: Value) -> str:
    """Three digits that count; a number that is missing is a dash."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


class Report:
    """Prints each part of a benchmark as soon as it is measured, and keeps the JSON file up to date with them."""

    def __init__(self, options: argparse.Namespace, packages: Sequence[str] = ()) -> None:
        self.file: Path | None = options.json
        self.content: dict[str, Any] = {
            "command": " ".join([f"python -m {_module()}", *sys.argv[1:]]),
            "settings": {key: _plain(value) for key, value in vars(options).items() if key != "json"},
            **circumstances(packages),
            "results": {},
        }

    def add(self, part: str, rows: Sequence[Row], rounds: Mapping[str, Sequence[float]] | None = None) -> None:
        """`rounds`: what the rows are medians of."""
        print(f"\n**{part}**\n\n{markdown(rows)}", flush=True)
        self.content["results"][part] = {"rows": rows} | ({"rounds": rounds} if rounds else {})
        if self.file:
            write_json(self.file, self.content)


def circumstances(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Where, when and with what numbers are made. `packages` are named besides torch and NumPy."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", *packages):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "hardware": f"{os.cpu_count()} cores; {describe_hardware(device)}",
        "load": round(os.getloadavg()[0], 2),  # of the last minute: an idle machine's is near 0
        "versions": versions,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def run(main: Callable[[], None]) -> None:
    """Run a command; bad input ends it with one line."""
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).name


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _commit() -> str | None:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or None
