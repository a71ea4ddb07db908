"""What a new user waits for: clone, `make run`, and `make run` again with nothing changed.

    python -m benchmarks.fresh_clone [--keep]

Clones this repository's HEAD to a temporary folder, runs the real commands there, and prints seconds and the largest
memory of all processes together.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil


def measure(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command to its end: seconds, and the largest sum of resident memory over its process tree in GB."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "VIRTUAL_ENV")}
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=environment)
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.5):
            total = 0
            for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total / 1e9)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = process.wait()
    done.set()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return {"seconds": round(time.monotonic() - started, 1), "peak_gb": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the clone, with all that it made")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fresh-clone-"))
    subprocess.run(["git", "clone", "--quiet", ".", str(folder)], check=True)
    setup = measure(["make", ".venv/main.stamp"], folder)
    run = measure(["make", "run"], folder)
    again = measure(["make", "run"], folder)
    print(json.dumps({"set-up": setup, "make run": run, "make run, nothing changed": again}, indent=2))
    if options.keep:
        print(folder)
    else:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
