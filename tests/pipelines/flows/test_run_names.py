import re
from typing import Any

import pytest
from prefect import flow
from prefect.runtime import flow_run

from pipelines.flows.run_names import run_name


@flow(name="tiny", flow_run_name=run_name)
def tiny(
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
    seeds: list[int] | None = None,
    parameters: dict[str, list[Any]] | None = None,
    parallel: int = 2,
) -> str:
    return str(flow_run.name)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"parallel": 3}, "tiny"),
        ({"preset": "own-images", "overrides": {"seed": 7, "a.b": None}}, "tiny preset=own-images seed=7 a.b=None"),
        ({"seeds": [0, 1], "parameters": {"a.b": [1, 2.5]}}, "tiny seeds=0,1 a.b=1,2.5"),
        ({"preset": "x" * 300}, f"tiny preset={'x' * 92}…"),
    ],
)
def test_a_run_is_called_by_what_was_asked_and_when(prefect_server, asked, told):
    name = tiny(**asked)
    assert re.fullmatch(r"(.*) \d{4}-\d\d-\d\d \d\d:\d\d", name)[1] == told
