"""`python -m pipelines.tracking sync` sends what waits on disk; `status` lists it."""

import argparse
import sys
from pathlib import Path

from pipelines.tracking import outbox, store
from pipelines.tracking.journal import tracking_folder
from pipelines.tracking.sender import deliver


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.tracking", description=__doc__)
    parser.add_argument("command", choices=["sync", "status"])
    command = parser.parse_args(arguments).command
    root = tracking_folder()
    return sync(root) if command == "sync" else status(root)


def sync(root: Path) -> int:
    """Send everything; 1 if something is still pending."""
    delivery = deliver(timeout=60.0, root=root)
    uri = store.without_password(store.default_uri(root))
    for key, run_id in delivery.sent.items():
        print(f"sent     {key} → run {run_id}")
    for key in delivery.running:
        print(f"running  {key}")
    for key in delivery.pending:
        print(f"pending  {key}")
    print(f"{len(delivery.sent)} sent to {uri}, {len(delivery.pending)} pending")
    return 1 if delivery.pending else 0


def status(root: Path) -> int:
    """List the journals on disk, without asking any server."""
    keys = outbox.waiting(root)
    for key in keys:
        print(f"{'running' if outbox.is_written(root / 'journals' / key) else 'waiting'}  {key}")
    print(f"{len(keys)} journals in {root / 'journals'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
