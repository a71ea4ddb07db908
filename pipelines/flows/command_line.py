"""`python -m pipelines flow NAME [KEY=VALUE …]`: run a flow here and now; values are YAML, such as seeds=[0,1,2]."""

import importlib
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from typer.core import TyperGroup

from components.errors import nearest

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.states import State


class Flows(TyperGroup):
    """A flow's parameters are in its help; only that help waits for the import of Prefect."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, further = super().resolve_command(ctx, args)
        if name and command and "--help" in further:
            command.epilog = parameters(find(name))
        return name, command, further


app = typer.Typer(name="flow", cls=Flows, no_args_is_help=True, rich_markup_mode=None)
FLOWS = {
    "reproduce": "Bring stages up to date, independent ones side by side.",
    "sweep": "Rank variants over seeds and values of parameters.",
    "retrain": "Take in new images, and reproduce in an isolated workspace.",
    "monitor": "Let the champion score new images; it fails on drift.",
}


@app.callback()
def flow() -> None:
    """Run a Prefect flow here and now. `flow NAME --help` lists its parameters.

    Without PREFECT_API_URL Prefect starts a server for as long as the flow runs; where the flow is killed, that server
    stays behind (the stages do not).
    """


def _run_flow(
    ctx: typer.Context,
    given: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="a parameter; the value is YAML")
    ] = None,
) -> int:
    return run(str(ctx.info_name), given or [])


for _name, _summary in FLOWS.items():
    app.command(_name, help=_summary)(_run_flow)


def run(name: str, given: Sequence[str]) -> int:
    """Run a flow; 1 where it failed, with its message on stderr.

    Raises:
        UserError: no Prefect server answers.
    """
    flow = find(name)
    parsed = parse(flow, given)
    reach_server()
    state: State = cast(Any, flow)(**parsed, return_state=True)
    if state.is_completed():
        return 0
    print(f"error: {state.message}", file=sys.stderr)
    return 1


def find(name: str) -> "Flow[Any, Any]":
    """The flow of this name."""
    flow: Flow[Any, Any] = getattr(importlib.import_module(f"pipelines.flows.{name}"), name)
    return flow


def reach_server() -> None:
    """A UserError where a Prefect server is named and not to be had: the flow itself would end with tracebacks."""
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    from pipelines.flows.deployments import check_server

    if get_current_settings().api.url:
        with get_client(sync_client=True) as client:
            check_server(client)


def parse(flow: "Flow[Any, Any]", given: Sequence[str]) -> dict[str, Any]:
    """Parameters from `key=value` words; a mistake in the command says which is unknown, missing or wrong."""
    from prefect.exceptions import ParameterTypeError

    known = flow.parameters.properties
    listed = f"Parameters of {flow.name}: {', '.join(known)}."
    parsed = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals:
            raise typer.BadParameter(f"{word!r}: expected key=value. {listed}")
        if key not in known:
            raise typer.BadParameter(f"unknown parameter {key!r}{nearest(key, known)}. {listed}")
        try:
            parsed[key] = YAML(typ="safe").load(value)
        except YAMLError as error:
            raise typer.BadParameter(f"{key}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        flow.validate_parameters(parsed)
    except ParameterTypeError as error:
        problems = "; ".join(line.removeprefix(" - ") for line in str(error).splitlines()[1:])
        raise typer.BadParameter(f"{flow.name}: {problems}.") from error
    return parsed


def parameters(flow: "Flow[Any, Any]") -> str:
    """A flow's parameters for its help: what they mean and their defaults, as Prefect has them from the docstring."""
    lines = ["\b", "Parameters:"]
    for key, known in flow.parameters.properties.items():
        default = known.get("default")
        text = f"{key}: {' '.join(known['description'].split())}{'' if default is None else f' (default: {default!r})'}"
        lines += textwrap.wrap(text, 76, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)
