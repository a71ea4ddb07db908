"""What a flow run is called: `reproduce training.steps=800 2026-11-23 02:00`, by what was asked of it and when."""

from datetime import UTC, datetime

from prefect.runtime import flow_run

ASKED = ("preset", "overrides", "targets", "variants", "seeds", "parameters", "incoming")
MAX_ASKED = 100  # characters


def run_name() -> str:
    """For a flow's `flow_run_name`: Prefect calls it when the run begins."""
    asked = " ".join(_words(name, flow_run.parameters.get(name)) for name in ASKED if flow_run.parameters.get(name))
    shown = asked if len(asked) <= MAX_ASKED else f"{asked[: MAX_ASKED - 1]}…"
    return " ".join(filter(None, [flow_run.flow_name, shown, f"{datetime.now(UTC):%Y-%m-%d %H:%M}"]))


def _words(name: str, value: object) -> str:
    """As one would type it: key=value, and of several settings each its own."""
    if isinstance(value, dict):
        return " ".join(_words(key, each) for key, each in value.items())
    return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
