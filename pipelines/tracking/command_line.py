"""`python -m pipelines tracking COMMAND`: what waits on disk for MLflow, the comparison page, and who is champion."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import UserError
from components.locks import locked
from pipelines.ports import HOST, check_free
from pipelines.tracking import promotion, spool, store, views
from pipelines.tracking.journal import tracking_folder
from pipelines.tracking.secrets import without_password
from pipelines.tracking.uploader import deliver

if TYPE_CHECKING:
    from mlflow import MlflowClient


app = typer.Typer(name="tracking", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def tracking() -> None:
    """What waits to be sent to MLflow, its views, the champion."""


@app.command()
def sync() -> int:
    """Send what waits on disk. Exits with 1 if something is still pending."""
    root = tracking_folder()
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


@app.command()
def status() -> None:
    """List what waits on disk, without asking any server."""
    root = tracking_folder()
    keys = spool.waiting(root)
    for key in keys:
        print(f"{'running' if spool.is_written(root / 'journals' / key) else 'waiting'}  {key}")
    print(f"{len(keys)} journals in {root / 'journals'}")


@app.command()
def ui(port: Annotated[int, typer.Argument(help="of MLflow's UI on this machine")]) -> None:
    """Prepare `make ui`: check the port, sync, print the links."""
    check_free(port, f"Take another: PORT={port + 1} make ui.")
    sync()  # it tells what is left to be sent, and MLflow starts all the same
    links(f"http://{HOST}:{port}")


@app.command()
def links(address: Annotated[str, typer.Argument(help="of MLflow's UI: http://127.0.0.1:5000")]) -> None:
    """Save the comparison's views in MLflow and print their addresses."""
    from pipelines.config.params import load_params

    def addresses(client: "MlflowClient") -> str:
        uri = store.default_uri(tracking_folder())
        experiment = store.experiment_id(client, uri, load_params().tracking.experiment)
        return "\n".join(f"{view.name}: {view.address(address, experiment)}" for view in views.VIEWS)

    print(_asked(addresses))


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="its number, or an alias: challenger")],
    force: Annotated[bool, typer.Option("--force", help="even if it has not passed the gate")] = False,
) -> None:
    """Make a version champion by hand."""
    print(_moved(partial(promotion.promote, wanted=version, force=force)))


@app.command()
def rollback() -> None:
    """Make the champion before the present one champion again."""
    print(_moved(promotion.roll_back))


def _moved(move: "Callable[[MlflowClient, str], str]") -> str:
    """Move the champion of params.yaml's registered model, one process at a time."""
    from pipelines.config.params import load_params

    name = load_params().tracking.registered_model
    with locked(tracking_folder() / promotion.LOCK):
        return _asked(lambda client: move(client, name))


def _asked(ask: "Callable[[MlflowClient], str]") -> str:
    """Ask MLflow; whatever it answers with instead is a UserError."""
    root = tracking_folder()
    uri = store.default_uri(root)
    try:
        return ask(store.connect(uri, root, timeout=60.0))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow: {store.explain(error, uri)}.") from error
