"""`python -m pipelines COMMAND`: the project's command line, also installed as `gcrl`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from components.errors import ConfigError, UserError

app = typer.Typer(
    name="gcrl", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def _commands() -> None:
    """From raw images to an encoder that knows when it doesn't know. `make help` lists what is run with make."""


@app.command()
def predict(
    images: Annotated[Path, typer.Argument(help="folder of images, searched to any depth")],
    out: Annotated[Path, typer.Argument(help="table to be written: .csv or .parquet")],
    model: Annotated[
        str,
        typer.Option(help="alias or number of a version of the registered model, or the folder of an export"),
    ] = "champion",
) -> None:
    """Write a model's answers on a folder of images: classes, probabilities, OOD scores and flags."""
    from pipelines.predict import predict

    print(predict(images, out, model))


def main() -> None:
    """Exits with 0, 1 for a user's mistake, 2 for one in params.yaml or in the command."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
