"""`python -m pipelines.tracking COMMAND`: what waits on disk for MLflow, the comparison page, and who is champion."""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import ConfigError, UserError, os_errors_explained
from components.locks import locked
from pipelines.ports import HOST, check_free
from pipelines.tracking import promotion, spool, store, views
from pipelines.tracking.journal import tracking_folder
from pipelines.tracking.secrets import without_password
from pipelines.tracking.uploader import deliver

if TYPE_CHECKING:
    from mlflow import MlflowClient


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where something is left to be sent or was refused, 2 for a mistake in params.yaml."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.tracking", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="send what waits on disk")
    ui = commands.add_parser("ui", help="what `make ui` does first: see that the port is free, sync, print the links")
    ui.add_argument("port", type=int)
    commands.add_parser("status", help="list what waits on disk, without asking any server")
    links = commands.add_parser("links", help="save the comparison's views in MLflow and print their addresses")
    links.add_argument("address", help="of MLflow's UI: http://127.0.0.1:5000")
    promote = commands.add_parser("promote", help="make a version champion by hand")
    promote.add_argument("version", help="its number, or an alias: challenger")
    promote.add_argument("--force", action="store_true", help="even if it has not passed the gate")
    commands.add_parser("rollback", help="make the champion before the present one champion again")
    options = parser.parse_args(arguments)
    root = tracking_folder()
    try:
        match options.command:
            case "sync":
                return sync(root)
            case "ui":
                check_free(options.port, f"Take another: PORT={options.port + 1} make ui.")
                sync(root)  # it tells what is left to be sent, and MLflow starts all the same
                print(_asked(root, lambda client: links_to(client, root, f"http://{HOST}:{options.port}")))
            case "status":
                return status(root)
            case "links":
                print(_asked(root, lambda client: links_to(client, root, options.address)))
            case "promote":
                print(_moved(root, partial(promotion.promote, wanted=options.version, force=options.force)))
            case "rollback":
                print(_moved(root, promotion.roll_back))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


@os_errors_explained()
def sync(root: Path) -> int:
    """Send everything; 1 if something is still pending."""
    delivery = deliver(timeout=60.0, root=root)
    uri = without_password(store.default_uri(root))
    for key, run_id in delivery.sent.items():
        print(f"sent     {key} → run {run_id}")
    for key in delivery.running:
        print(f"running  {key}")
    for key in delivery.pending:
        print(f"pending  {key}")
    print(f"{len(delivery.sent)} sent to {uri}, {len(delivery.pending)} pending")
    return 1 if delivery.pending else 0


@os_errors_explained()
def status(root: Path) -> int:
    """List the journals on disk, without asking any server."""
    keys = spool.waiting(root)
    for key in keys:
        print(f"{'running' if spool.is_written(root / 'journals' / key) else 'waiting'}  {key}")
    print(f"{len(keys)} journals in {root / 'journals'}")
    return 0


def links_to(client: "MlflowClient", root: Path, address: str) -> str:
    """The addresses of the experiment's saved views, a line each."""
    from pipelines.config.params import load_params

    experiment = store.experiment_id(client, store.default_uri(root), load_params().tracking.experiment)
    return "\n".join(f"{view.name}: {view.address(address, experiment)}" for view in views.VIEWS)


@os_errors_explained()
def _moved(root: Path, move: "Callable[[MlflowClient, str], str]") -> str:
    """Move the champion of params.yaml's registered model, one process at a time."""
    from pipelines.config.params import load_params

    name = load_params().tracking.registered_model
    with locked(root / promotion.LOCK):
        return _asked(root, lambda client: move(client, name))


@os_errors_explained()
def _asked(root: Path, ask: "Callable[[MlflowClient], str]") -> str:
    """Ask MLflow; whatever it answers with instead is a UserError."""
    uri = store.default_uri(root)
    try:
        return ask(store.connect(uri, root, timeout=60.0))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow: {store.explain(error, uri)}.") from error


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a request that was given up waits for its answer still
