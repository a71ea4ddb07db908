"""`python -m pipelines COMMAND`: the project's command line, also installed as `gcrl`.

A command's code is imported when the command runs. `python -m pipelines.stages`, which DVC calls, stands apart.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from pipelines.exit_code import end, exit_code
from pipelines.flows import command_line as flows
from pipelines.tracking import command_line as tracking


class Commands(TyperGroup):
    """Every command ends by the one rule."""

    def invoke(self, ctx: Any) -> NoReturn:
        invoke = super().invoke
        raise typer.Exit(exit_code(lambda: invoke(ctx)))


HANDED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # words that another program reads
app = typer.Typer(
    name="gcrl",
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _commands() -> None:
    """From raw images to an encoder that knows when it doesn't know. `make help` lists what is run with make.

    Exit codes: 0, 1 where something failed, 2 for a mistake in params.yaml or in the command, 130 after Ctrl-C.
    """


@app.command()
def preset(name: Annotated[str, typer.Argument(help="of a file in presets/")]) -> None:
    """Make a preset the present params.yaml. Edits of yours are not overwritten."""
    from pipelines.config.presets import use

    print(use(name))


@app.command()
def repro(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="STAGE", help="with what it needs; all stages if there are none"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="run even what is up to date")] = False,
    single_item: Annotated[
        bool, typer.Option("--single-item", help="the stages alone, without what they need")
    ] = False,
    held: Annotated[bool, typer.Option("--held", help="the caller holds the project", hidden=True)] = False,
) -> int:
    """Reproduce the pipeline, or stages of it.

    It is `dvc repro`, in turns with all such commands and flow runs of the project.
    """
    from pipelines.repro import repro

    return repro(targets or [], force, single_item, held)


@app.command()
def predict(
    images: Annotated[Path, typer.Argument(help="folder of images, searched to any depth")],
    out: Annotated[Path, typer.Argument(help="table to be written: .csv or .parquet")],
    model: Annotated[
        str,
        typer.Option(help="alias or number of a version of the registered model, or the folder of an export"),
    ] = "champion",
) -> None:
    """Write a model's answers on a folder of images.

    The table has classes, probabilities, OOD scores and flags.
    """
    from pipelines.predict import predict

    print(predict(images, out, model))


app.add_typer(flows.app)


@app.command()
def deploy() -> None:
    """Bring prefect.yaml to a Prefect server.

    It is that of PREFECT_API_URL, or else this project's own, which is started.

    Environment: PORT and DATABASE of the own server; ACTIVE (true or false) and TIMEZONE of the schedules.
    """
    from pipelines.flows.deploy import deploy

    deploy()


@app.command(context_settings=HANDED_ON)
def worker(
    ctx: typer.Context,
    pool: Annotated[str | None, typer.Option(help="the work pool  [default: this project's own]")] = None,
) -> None:
    """Run what is due, until Ctrl-C. Further options are those of `prefect worker start`."""
    from pipelines.flows.deploy import worker

    worker(pool, ctx.args)


@app.command()
def undeploy() -> None:
    """Stop this project's own Prefect server."""
    from pipelines.flows import server

    print("the Prefect server is stopped" if server.stop() else "no Prefect server was running here")


app.add_typer(tracking.app)


@app.command(context_settings=HANDED_ON, add_help_option=False)
def experiments(ctx: typer.Context) -> int:
    """Compare models over seeds, here or elsewhere.

    It is `python -m pipelines.experiments`, which runs without what this command line needs, too.
    """
    from pipelines.experiments.__main__ import main

    return main(ctx.args)


@app.command()
def derive() -> None:
    """Write the derived parts of docs and presets anew."""
    from pipelines.derived import write_derived

    write_derived()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's; returns the exit code."""
    try:
        app(arguments, prog_name="gcrl")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def run() -> NoReturn:
    """The process's whole work."""
    code = main()
    if "prefect" in sys.modules:  # which stops a server that it has started, and sends its logs, at the very end
        sys.exit(code)
    end(code)


if __name__ == "__main__":
    run()
