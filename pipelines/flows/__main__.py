"""Run a flow here and now: `python -m pipelines.flows FLOW [key=value …]`; values are YAML, such as seeds=[0,1,2].

Without PREFECT_API_URL Prefect starts a server for as long as the flow runs; where the flow is killed, that server
stays behind (the stages do not).
"""

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import UserError, nearest

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.states import State

FLOWS = ("reproduce", "sweep", "retrain", "monitor")
USAGE = "usage: python -m pipelines.flows FLOW [key=value …]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 if the flow failed; 2 for a mistake in the command; 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print("\n\n".join([USAGE, *(describe(name) for name in FLOWS)]))
        return 0 if given else 2
    try:
        flow = find(given[0])
        parameters = parse(flow, given[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        reach_server()
        state: State = cast(Any, flow)(**parameters, return_state=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the stages have ended, and the same command goes on from there", file=sys.stderr)
        return 130
    if state.is_completed():
        return 0
    print(f"error: {state.message}", file=sys.stderr)
    return 1


def find(name: str) -> "Flow[Any, Any]":
    """The flow of this name; a UserError names the nearest where there is none."""
    if name not in FLOWS:
        raise UserError(f"unknown flow {name!r}{nearest(name, FLOWS)}. Flows: {', '.join(FLOWS)}.")
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
    """Parameters from `key=value` words; a UserError says which is unknown, missing or wrong."""
    from prefect.exceptions import ParameterTypeError

    known = inspect.signature(flow.fn).parameters
    parameters = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r}: expected key=value. Parameters of {flow.name}: {', '.join(known)}.")
        if key not in known:
            hint = f"{nearest(key, known)}. Parameters of {flow.name}: {', '.join(known)}"
            raise UserError(f"unknown parameter {key!r}{hint}.")
        try:
            parameters[key] = YAML(typ="safe").load(value)
        except YAMLError as error:
            raise UserError(f"{key}: not valid YAML: {' '.join(str(error).split())}") from error
    missing = [name for name, p in known.items() if p.default is p.empty and name not in parameters]
    if missing:
        raise UserError(f"{flow.name} needs {', '.join(f'{name}=…' for name in missing)}.")
    try:
        flow.validate_parameters(parameters)
    except ParameterTypeError as error:
        problems = "; ".join(line.removeprefix(" - ") for line in str(error).splitlines()[1:])
        raise UserError(f"{flow.name}: {problems}.") from error
    return parameters


def describe(name: str) -> str:
    """A flow, its parameters with their defaults, and what they mean, from its signature and docstring."""
    flow = find(name)
    text = inspect.getdoc(flow.fn) or ""
    meanings = dict(re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", text.partition("\nArgs:\n")[2], re.MULTILINE))
    lines = [f"{name}: {text.partition(chr(10))[0]}"]
    for key, parameter in inspect.signature(flow.fn).parameters.items():
        default = "" if parameter.default in (parameter.empty, None) else f" (default: {parameter.default!r})"
        meaning = " ".join(meanings.get(key, "").split())
        lines.append(textwrap.fill(f"{key}: {meaning}{default}", 100, initial_indent="  ", subsequent_indent="      "))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
