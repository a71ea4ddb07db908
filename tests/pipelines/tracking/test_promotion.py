"""Promoting a version by hand and rolling back, on a real registry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.errors import UserError
from pipelines.__main__ import main
from pipelines.tracking import Journal, promotion, promotion_result

Add = Callable[..., str]


@pytest.fixture
def name(client: MlflowClient, request: pytest.FixtureRequest) -> str:
    """A registered model without versions."""
    client.create_registered_model(request.node.name)
    return str(request.node.name)


@pytest.fixture
def add(client: MlflowClient, name: str) -> Add:
    """Register a version with these tags; returns its number."""

    def add(**tags: str) -> str:
        version = client.create_model_version(name, "file:///nowhere", tags={"gate_passed": "True", **tags})
        return str(version.version)

    return add


def is_champion(client: MlflowClient, name: str) -> str | None:
    version = client.get_registered_model(name).aliases.get("champion")
    return None if version is None else str(version)


def test_promote_and_roll_back_twice(client: MlflowClient, name: str, add: Add) -> None:
    first, second, third = add(variant="hybrid", score="0.9"), add(), add()
    told = promotion.promote(client, name, first)
    assert told == f"Champion of {name} is now version 1 (hybrid, score 0.9000); there was none before."
    promotion.promote(client, name, second)
    told = promotion.promote(client, name, third)
    assert told == f"Champion of {name} is now version 3; before it was version 2."
    tags = client.get_model_version(name, third).tags
    assert tags["previous_champion"] == second
    assert "by hand by " in tags["promoted_by"]

    told = promotion.roll_back(client, name)
    assert told.startswith(f"Champion of {name} is version 2 again; version 3 is rolled back")
    assert is_champion(client, name) == second
    promotion.roll_back(client, name)
    assert is_champion(client, name) == first
    with pytest.raises(UserError, match=r"version 1 of .* has no champion before it"):
        promotion.roll_back(client, name)
    assert is_champion(client, name) == first


def test_a_version_promoted_again_does_not_trap_rollbacks(client: MlflowClient, name: str, add: Add) -> None:
    first, second, third = add(), add(), add()
    for version in (first, second, third, second):
        promotion.promote(client, name, version)
    champions = []
    for _ in range(3):
        promotion.roll_back(client, name)
        champions.append(is_champion(client, name))
    assert champions == [third, second, first]


def test_an_alias_names_a_version_too(client: MlflowClient, name: str, add: Add) -> None:
    add()
    client.set_registered_model_alias(name, "challenger", add())
    assert "is now version 2" in promotion.promote(client, name, "challenger")


def test_refusals(client: MlflowClient, name: str, add: Add) -> None:
    with pytest.raises(UserError, match="no registered model 'nothing'"):
        promotion.promote(client, "nothing", "1")
    with pytest.raises(UserError, match=r"is '1'\. Its versions: none\. Its aliases: none\."):
        promotion.promote(client, name, "1")
    with pytest.raises(UserError, match="has no champion to roll back"):
        promotion.roll_back(client, name)
    add(variant="hybrid")
    promotion.promote(client, name, "1")
    with pytest.raises(UserError, match=r"is 'soon'\. Its versions: 1 \(hybrid\)\. Its aliases: champion\."):
        promotion.promote(client, name, "soon")
    with pytest.raises(UserError, match=r"version 1 of .* is the champion already"):
        promotion.promote(client, name, "champion")


def test_the_gate_holds_unless_forced(client: MlflowClient, name: str, add: Add) -> None:
    add(gate_passed="False", gate="linear_accuracy is 0.5, at least 0.9 is wanted")
    with pytest.raises(UserError, match=r"has not passed the gate: linear_accuracy is 0\.5.*--force"):
        promotion.promote(client, name, "1")
    assert is_champion(client, name) is None
    assert promotion.promote(client, name, "1", force=True).endswith("It has not passed the gate.")
    assert "without having passed the gate" in client.get_model_version(name, "1").tags["promotion"]
    client.create_model_version(name, "file:///nowhere")
    with pytest.raises(UserError, match=r"version 2 of .* was never compared"):
        promotion.promote(client, name, "2")


class InterruptedWriteError(Exception):
    """The process died here."""


@pytest.fixture(params=range(1, 9))
def breaking(client: MlflowClient, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> MlflowClient:
    """A client that dies instead of its n-th write."""
    breaking = MlflowClient(client.tracking_uri, client._registry_uri)
    writes = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == request.param:
                raise InterruptedWriteError
            return write(*arguments)

        return call

    for method in ("set_model_version_tag", "set_registered_model_tag", "set_registered_model_alias"):
        monkeypatch.setattr(breaking, method, dying(getattr(breaking, method)))
    return breaking


def test_interrupted_anywhere_the_line_of_champions_holds(
    client: MlflowClient, breaking: MlflowClient, name: str, add: Add
) -> None:
    first, second, third = add(), add(), add()
    promotion.promote(client, name, first)
    promotion.promote(client, name, second)
    try:
        promotion.promote(breaking, name, third)
    except InterruptedWriteError:
        assert is_champion(client, name) == second
        promotion.promote(client, name, third)
    try:
        promotion.roll_back(breaking, name)
    except InterruptedWriteError:
        if is_champion(client, name) == third:
            promotion.roll_back(client, name)
    assert is_champion(client, name) == second
    promotion.roll_back(client, name)
    assert is_champion(client, name) == first


def test_a_deleted_version_is_passed_over(client: MlflowClient, name: str, add: Add) -> None:
    for version in (add(), add(), add()):
        promotion.promote(client, name, version)
    client.delete_model_version(name, "2")
    promotion.roll_back(client, name)
    assert is_champion(client, name) == "1"


def test_a_champion_chosen_in_mlflows_own_ui_can_be_rolled_back(client: MlflowClient, name: str, add: Add) -> None:
    promotion.promote(client, name, add())
    client.set_registered_model_alias(name, "champion", add())
    promotion.roll_back(client, name)
    assert is_champion(client, name) == "1"


def test_no_comparison_promotes_what_was_rolled_back(
    client: MlflowClient, name: str, root: Path, another_model: Callable[[], Path], send: Callable[..., Any]
) -> None:
    def compare(run_key: str, score: float) -> dict[str, Any]:
        with Journal.start("compare", root=root) as compare:
            compare.version_tags(name, run_key, {"gate_passed": True, "gate": "every condition is met"})
            compare.promote(name, run_key, score, "auroc", True, "every condition is met", "d")
        assert send().error is None
        result = promotion_result(compare.key, root)
        assert result is not None
        return result

    keys = []
    for score in (0.8, 0.9):
        with Journal.start("report", root=root) as report:
            report.model(another_model(), "encoder", name)
        keys.append(report.key)
        assert compare(report.key, score)["moved"]
    promotion.roll_back(client, name)
    again = compare(keys[1], 0.9)
    assert (again["moved"], again["champion"]) == (False, "1")
    assert "it was rolled back by hand" in again["reason"]
    promotion.promote(client, name, "2")
    assert is_champion(client, name) == "2"
    assert "rolled_back" not in client.get_model_version(name, "2").tags


@pytest.fixture
def project(root: Path, store: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose params.yaml names the registered model, and whose MLflow is the shared store."""
    preset = (Path(__file__).parents[3] / "presets" / "digits-cpu.yaml").read_text()
    (root.parent / "params.yaml").write_text(preset.replace("registered_model: gcrl", f"registered_model: {name}"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return root.parent


def test_command(project: Path, client: MlflowClient, name: str, add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tracking", "rollback"]) == 1
    assert capsys.readouterr().err == f"error: {name} has no champion to roll back. `promote VERSION` makes one.\n"
    add(), add(gate_passed="False")
    assert main(["tracking", "promote", "1"]) == 0
    assert main(["tracking", "promote", "2"]) == 1
    assert main(["tracking", "promote", "2", "--force"]) == 0
    assert main(["tracking", "rollback"]) == 0
    assert capsys.readouterr().out.count(f"Champion of {name} is") == 3
    assert is_champion(client, name) == "1"


def test_command_without_a_server(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["tracking", "promote", "1"]) == 1
    assert capsys.readouterr().err == "error: MLflow: http://127.0.0.1:9 cannot be reached.\n"
