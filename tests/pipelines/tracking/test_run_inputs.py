"""A second try of a run whose inputs decide it: the same journal, the same run, the same version."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.errors import UserError
from pipelines.tracking import Delivery, Journal, promotion_result
from pipelines.tracking.run_inputs import Inputs
from pipelines.tracking.spool import delivering, read_events, waiting
from pipelines.tracking.store import find_runs

Send = Callable[..., Delivery]
Report = Callable[..., Journal]


@pytest.fixture
def inputs(request: pytest.FixtureRequest) -> Inputs:
    return Inputs({"runs": {"pretrain": request.node.name}}, 1_700_000_000.5)


@pytest.fixture
def report(root: Path, inputs: Inputs, another_model: Callable[[], Path], request: pytest.FixtureRequest) -> Report:
    """One whole try, without its end."""
    model = another_model()

    def report(**options: Any) -> Journal:
        journal = Journal.start("report", "hybrid", params={"steps": 3}, root=root, inputs=inputs, **options)
        for step in range(3):
            journal.metrics({"loss": 1 / (1 + step)}, step)
        journal.metrics({"accuracy": 0.9, "odd": float("nan")})
        journal.artifact(model)
        journal.model(model, "hybrid", request.node.name.partition("[")[0], tags={"variant": "hybrid"})
        return journal

    return report


def points(client: MlflowClient, run_id: str) -> dict[str, list[int]]:
    names = client.get_run(run_id).data.metrics
    return {name: [m.step for m in client.get_metric_history(run_id, name)] for name in names}


@pytest.mark.parametrize("sent", ["not at all", "in part", "wholly"])
@pytest.mark.parametrize("ended", ["killed", "failed", "finished"])
def test_a_second_try_is_the_same_run_and_version(
    sent: str, ended: str, report: Report, send: Send, client: MlflowClient, request: pytest.FixtureRequest
) -> None:
    first = report()
    if sent == "in part":
        assert send(only=[first.key]).running == [first.key]
    if ended == "killed":
        os.close(first._descriptor)
    elif ended == "finished":
        first.finish()
    else:
        with pytest.raises(RuntimeError), first:
            raise RuntimeError("as it was")
    if sent == "wholly":
        assert list(send().sent) == [first.key]
    second = report()
    assert second.key == first.key
    second.finish()
    assert list(send().sent) == [second.key]
    (run,) = find_runs(client, second.key)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    assert points(client, run.info.run_id) == {"loss": [0, 1, 2], "accuracy": [0], "odd": [0]}
    assert client.get_metric_history(run.info.run_id, "loss")[0].timestamp == 1_700_000_000_500
    (version,) = client.search_model_versions(
        f"name = '{request.node.name.partition('[')[0]}' and run_id = '{run.info.run_id}'"
    )
    outputs = client.get_run(run.info.run_id).outputs
    assert [client.get_logged_model(o.model_id).artifact_location for o in outputs.model_outputs] == [version.source]


def test_other_inputs_settings_and_experiments_are_other_runs(root: Path) -> None:
    def key(content: Any = "a", **changes: Any) -> str:
        options: dict[str, Any] = {"stage": "report", "variant": "hybrid", "params": {"seed": 0}} | changes
        with Journal.start(**options, root=root, inputs=Inputs({"runs": content}, 1.0)) as journal:
            return journal.key

    others = [key("b"), key(params={"seed": 1}), key(variant="other"), key(experiment="other"), key(stage="compare")]
    assert len({key(), *others}) == 1 + len(others)
    assert key() == key()


def test_a_try_that_is_still_at_work_is_left_alone(report: Report, root: Path) -> None:
    first = report()
    before = read_events(first.folder)
    with pytest.raises(UserError, match="another process is at work on the same"):
        report()
    assert read_events(first.folder) == before
    first.finish()


def test_a_journal_that_is_being_sent_is_left_alone(
    report: Report, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.tracking import journal as journals
    from pipelines.tracking.run_inputs import forget_earlier_try

    monkeypatch.setattr(journals, "forget_earlier_try", lambda key, root: forget_earlier_try(key, root, wait=0.2))
    first = report()
    first.finish()
    with delivering(first.folder, 0) as mine:
        assert mine
        with pytest.raises(UserError, match="another process is sending it to MLflow"):
            report()
    report().finish()


def test_an_uploader_that_waited_for_the_old_journal_does_not_take_the_new_one(report: Report, root: Path) -> None:
    first = report()
    first.finish()
    with (first.folder / "upload.lock").open("a") as old:
        second = report()

        fcntl.flock(old, fcntl.LOCK_EX)  # of a file that is gone: another may hold the new one
        with delivering(second.folder, 0) as mine:
            assert mine
    second.finish()


def test_the_result_of_an_earlier_comparison_is_not_that_of_this_one(
    root: Path, inputs: Inputs, report: Report, send: Send, request: pytest.FixtureRequest
) -> None:
    reported = report()
    reported.finish()

    def compare() -> str:
        with Journal.start("compare", root=root, inputs=inputs) as journal:
            assert promotion_result(journal.key, root) is None
            journal.promote(request.node.name, reported.key, 0.9, "auroc", True, "always", "d")
        return journal.key

    first = compare()
    assert send().error is None
    told = promotion_result(first, root)
    assert told is not None
    assert told["moved"]
    second = compare()
    assert second == first
    assert promotion_result(second, root) is None
    assert send().error is None
    assert promotion_result(second, root) == told


def test_children_are_sent_before_the_run_that_is_named_by_its_inputs(
    root: Path, inputs: Inputs, send: Send, client: MlflowClient
) -> None:
    """Its key sorts anywhere."""
    children = []
    for stage in ("embed", "zeta"):
        with Journal.start(stage, root=root) as child:
            children.append(child.key)
    with Journal.start("0-report", root=root, inputs=inputs) as parent:
        parent.nest(children)
    assert waiting(root) == [*children, parent.key]
    assert list(send().sent) == [*children, parent.key]


def test_a_killed_writer_is_no_living_one(root: Path, inputs: Inputs) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipelines.tracking import Journal;"
        "from pipelines.tracking.run_inputs import Inputs;"
        "Journal.start('report', root=Path(sys.argv[1]), inputs=Inputs(eval(sys.argv[2]), 1.0));"
        "os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, root, repr(dict(inputs.content))]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    (key,) = waiting(root)
    with Journal.start("report", root=root, inputs=inputs) as journal:
        assert journal.key == key
        assert waiting(root) == [key]


def test_the_same_file_is_the_same_version(
    send: Send, root: Path, client: MlflowClient, another_model: Callable[[], Path], request: pytest.FixtureRequest
) -> None:
    name, model = request.node.name, another_model()
    keys = []
    for score, file in enumerate((model, model, another_model())):
        with Journal.start("report", root=root) as report:
            report.model(file, "encoder", name, {"score": score, "data_fingerprint": f"data {score}"})
        keys.append(report.key)
    assert send().error is None
    known = [(v.tags["score"], v.tags["data_fingerprint"]) for v in client.search_model_versions(f"name = '{name}'")]
    assert sorted(known) == [("1", "data 1"), ("2", "data 2")]
    with Journal.start("compare", root=root) as compare:
        compare.version_tags(name, keys[1], {"gate": "of the second"})
        compare.promote(name, keys[1], 0.9, "auroc", True, "always", "d")
    assert send().error is None
    versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda v: int(v.version))
    runs = [client.get_run(find_runs(client, key)[0].info.run_id) for key in keys]
    assert [v.run_id for v in versions] == [runs[0].info.run_id, runs[2].info.run_id]
    [[first], [second], [third]] = [[output.model_id for output in run.outputs.model_outputs] for run in runs]
    assert first == second != third
    assert (
        len(client.search_logged_models([runs[0].info.experiment_id], f"source_run_id = '{runs[1].info.run_id}'")) == 0
    )
    assert versions[0].tags["gate"] == "always"
    assert client.get_registered_model(name).aliases["champion"] == versions[0].version
    with Journal.start("compare", root=root) as compare:
        compare.promote(name, keys[0], 0.9, "auroc", True, "always", "d")
    assert send().error is None
    result = promotion_result(compare.key, root)
    assert result is not None
    assert (result["moved"], result["reason"]) == (False, "it is the champion already")
