"""Which version becomes champion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.errors import UserError
from pipelines.tracking import Delivery, Journal, promotion_result
from pipelines.tracking.promotion import decide
from pipelines.tracking.registry import ONNX, find_version
from pipelines.tracking.store import RUN_KEY, quoted

Send = Callable[..., Delivery]


@pytest.fixture
def propose(
    send: Send, root: Path, another_model: Callable[[], Path], request: pytest.FixtureRequest
) -> Callable[..., dict[str, Any]]:
    """Register a version (or take the one of an earlier run), propose it, and return what the promotion did."""

    def propose(
        score: float,
        gate: bool = True,
        data: str = "d",
        measure: str = "auroc",
        run_key: str | None = None,
        comparison: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        if run_key is None:
            with Journal.start("report", root=root) as report:
                report.model(another_model(), "encoder", request.node.name)
            run_key = report.key
        with Journal.start("compare", root=root) as compare:
            compare.promote(request.node.name, run_key, score, measure, gate, "accuracy ≥ 0.8", data, comparison)
        assert promotion_result(compare.key, root) is None
        assert send().error is None
        result = promotion_result(compare.key, root)
        assert result is not None
        return {**result, "run_key": run_key}

    return propose


def test_champion_moves_with_gate_and_score(
    propose: Callable[..., dict[str, Any]], client: MlflowClient, request: pytest.FixtureRequest
) -> None:
    name = request.node.name

    def aliases() -> dict[str, str]:
        return {k: str(v) for k, v in client.get_registered_model(name).aliases.items()}

    failed = propose(0.9, gate=False)
    assert (failed["moved"], failed["champion"], failed["reason"]) == (False, None, "the gate failed")
    assert aliases() == {"challenger": "1"}

    first = propose(0.8)
    assert (first["moved"], first["champion"], first["previous_champion"]) == (True, "2", None)
    assert aliases() == {"challenger": "2", "champion": "2"}

    worse = propose(0.7)
    assert (worse["moved"], worse["champion"], worse["previous_champion"]) == (False, "2", "2")
    assert "0.7000 is below the champion's 0.8000" in worse["reason"]
    assert aliases() == {"challenger": "3", "champion": "2"}

    better = propose(0.8)
    assert (better["moved"], better["champion"], better["previous_champion"]) == (True, "4", "2")
    assert client.get_model_version(name, "4").tags["previous_champion"] == "2"

    again = propose(0.8, run_key=better["run_key"])
    assert (again["moved"], again["champion"]) == (False, "4")
    assert again["reason"] == "it is the champion already"

    better_but_failed = propose(0.99, gate=False)
    assert (better_but_failed["moved"], better_but_failed["champion"]) == (False, "4")

    comparison = {"version": "4", "champion": 0.9, "candidate": 0.8, "images": 76}
    other_data = propose(0.99, data="e", comparison=comparison)
    assert (other_data["moved"], other_data["champion"]) == (False, "4")
    assert other_data["reason"] == (
        "its auroc 0.8000 is below the champion's 0.9000 on the 76 test images that neither knows"
    )
    stale = propose(0.99, data="e", comparison={"version": "2", "champion": 0.7, "candidate": 0.8, "images": 76})
    assert (stale["moved"], stale["champion"]) == (False, "4"), "it was scored against a champion of before"
    other_data = propose(0.1, data="e", comparison=comparison | {"candidate": 0.9})
    assert (other_data["moved"], other_data["champion"]) == (True, "8")
    assert "not below the champion's 0.9000 on the 76 test images" in other_data["reason"]

    back = propose(0.95, data="e", run_key=first["run_key"])
    assert (back["moved"], back["champion"], back["previous_champion"]) == (True, "2", "8")
    assert aliases() == {"challenger": "2", "champion": "2"}


def test_proposal_of_an_unknown_version_says_so(propose: Callable[..., dict[str, Any]]) -> None:
    result = propose(0.9, run_key="20200101T000000.000-report-00000000")
    assert not result["moved"]
    assert "no version" in result["reason"]


CANDIDATE = {"score": "0.1", "score_name": "auroc", "data_fingerprint": "d"}


@pytest.mark.parametrize(
    "champion",
    [
        {},
        {"score": "0.9", "score_name": "accuracy", "data_fingerprint": "d"},
        {"score": "0.9", "score_name": "auroc", "data_fingerprint": "e"},
    ],
)
@pytest.mark.parametrize(
    ("comparison", "moved", "told"),
    [
        (None, False, "was not at hand to be scored on this: `make promote` decides by hand"),
        ({"impossible": "it takes other images"}, True, "(it takes other images), so the gate alone decided"),
        (
            {"champion": 0.5, "candidate": 0.4, "images": 1000},
            False,
            "0.4000 is below the champion's 0.5000 on the 1,0",
        ),
        ({"champion": 0.5, "candidate": 0.5, "images": 1000}, True, "0.5000 is not below the champion's 0.5000 on the"),
    ],
)
def test_scores_of_another_kind_or_of_other_data_are_not_compared(
    champion: dict[str, str], comparison: dict[str, Any] | None, moved: bool, told: str
) -> None:
    decided, reason = decide(CANDIDATE, champion, True, comparison)
    assert decided == moved
    assert told in reason
    assert decide(CANDIDATE, champion, False, comparison) == (False, "the gate failed")


@pytest.mark.parametrize("name", ["o'brien", 'a "b"'])
def test_a_name_with_a_quotation_mark_is_found(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/model", tags={ONNX: "ab12"})
    client.create_run("0", tags={RUN_KEY: f"key of {name}", ONNX: "ab12"})
    found = find_version(client, name, f"key of {name}")
    assert found is not None
    assert found.name == name
    assert find_version(client, name, "another") is None


@pytest.mark.parametrize("value", ["'\"", "a\\"])
def test_a_value_that_no_filter_can_hold_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="both kinds of quotation marks or a backslash"):
        quoted(value)
