"""Everything in a journal arrives in MLflow, once: in a SQLite store and through a real server."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipelines.tracking import Delivery, Journal, deliver
from pipelines.tracking.spool import read_events, waiting
from pipelines.tracking.store import RUN_KEY, find_runs

Send = Callable[..., Delivery]


def only_run(client: MlflowClient, key: str) -> Run:
    (run,) = find_runs(client, key)
    return client.get_run(run.info.run_id)


def history(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]


@pytest.mark.parametrize("over_http", [False, True])
def test_everything_arrives(
    over_http: bool, root: Path, tmp_path: Path, onnx_file: Path, store: str, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue("server").uri if over_http else store
    client = MlflowClient(uri, uri)
    registered = f"encoder-{over_http}"
    with Journal.start("probe", "hybrid", root=root) as child:
        child.metrics({"accuracy": 0.9})
    figure = tmp_path / "roc.png"
    figure.write_bytes(b"png")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.html").write_text("page")
    with Journal.start("report", "hybrid", "hybrid 2026-11-22", {"training": {"steps": 3}}, root=root) as journal:
        for step in range(3):
            journal.metrics({"loss/nll": 1.0 / (step + 1), "odd": float("nan")}, step)
        journal.metrics({"infinite": float("inf")})
        journal.tags({"note": "ü"})
        journal.dataset("digits", "f" * 64, "data/prepared", {"num_rows": 1797}, "training")
        journal.artifact(figure, "figures")
        journal.artifact(tmp_path / "docs")
        tags = {"variant": "hybrid", "git_commit": "abc"}
        journal.model(onnx_file, "encoder", registered, tags, "# Card\n" * 1000, onnx_file.with_name("example.npy"))
        journal.nest([child.key])
        journal.promote(registered, journal.key, 0.9, "auroc", True, "accuracy ≥ 0.8", "f" * 64)

    delivery = deliver(uri, root=root)

    assert delivery.error is None
    assert list(delivery.sent) == [child.key, journal.key]
    assert waiting(root) == []
    assert not any((root / "journals").iterdir())
    run = only_run(client, journal.key)
    assert run.info.run_id == delivery.sent[journal.key]
    assert (run.info.run_name, run.info.status) == ("hybrid 2026-11-22", "FINISHED")
    assert run.info.end_time >= run.info.start_time
    assert run.data.params == {"training.steps": "3"}
    assert history(client, run, "loss/nll") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert len(history(client, run, "odd")) == 3
    assert np.isnan(run.data.metrics["odd"])
    assert run.data.metrics["infinite"] > 1e300
    assert run.data.tags["note"] == "ü"
    assert run.data.tags["version.mlflow"] == mlflow.__version__
    assert only_run(client, child.key).data.tags["mlflow.parentRunId"] == run.info.run_id

    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "f" * 36)
    assert json.loads(used.dataset.profile) == {"num_rows": 1797}
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/roc.png"]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "docs")] == ["docs/index.html"]

    version = client.get_model_version_by_alias(registered, "champion")
    assert version.version == client.get_model_version_by_alias(registered, "challenger").version
    assert (version.run_id, version.tags["git_commit"], version.tags["score"]) == (run.info.run_id, "abc", "0.9")
    assert version.description.startswith("# Card")
    assert len(run.outputs.model_outputs) == 1

    mlflow.set_registry_uri(uri)
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(f"models:/{registered}@champion")
    images = np.full((5, 2, 2, 1), 255, dtype=np.uint8)
    outputs = model.predict(images)
    np.testing.assert_allclose(outputs["embedding"], np.tile([2.5, 4.0], (5, 1)), rtol=1e-6)
    assert outputs["is_ood"].tolist() == [True] * 5
    (image,) = model.metadata.signature.inputs.inputs
    assert (image.name, image.type, image.shape) == ("image", np.dtype("uint8"), (-1, 2, 2, 1))
    assert [output.name for output in model.metadata.signature.outputs.inputs] == list(outputs)
    example = model.metadata.load_input_example()["image"]
    assert (example.dtype, example.shape) == (np.uint8, (2, 2, 2, 1))


def test_more_than_mlflow_takes_in_one_call(send: Send, root: Path, client: MlflowClient) -> None:
    with Journal.start("pretrain", params={f"p{i}": i for i in range(250)}, root=root) as journal:
        journal.metrics({f"m{i}": i for i in range(1500)})
        for step in range(500):
            journal.metrics({"loss": step}, step)
        journal.tags({f"t{i}": i for i in range(150)})
    assert send().error is None
    run = only_run(client, journal.key)
    assert len(run.data.params) == 250
    assert run.data.metrics["m1499"] == 1499
    assert history(client, run, "loss") == [(step, step) for step in range(500)]
    assert run.data.tags["t149"] == "149"


def test_growing_journal_is_sent_as_far_as_it_goes(send: Send, journal: Journal, client: MlflowClient) -> None:
    assert send() == Delivery(running=[journal.key])  # another process's business, unless it is named
    journal.metrics({"loss": 1}, step=0)
    assert send(only=[journal.key]).running == [journal.key]
    assert only_run(client, journal.key).info.status == "RUNNING"
    journal.metrics({"loss": 2}, step=1)
    journal.finish()
    assert list(send().sent) == [journal.key]
    run = only_run(client, journal.key)
    assert history(client, run, "loss") == [(0, 1), (1, 2)]
    assert run.info.status == "FINISHED"


def test_killed_process_leaves_a_killed_run(send: Send, root: Path, client: MlflowClient) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pipelines.tracking import Journal;"
        "j = Journal.start('pretrain', root=Path(sys.argv[1])); j.metrics({'loss': 1}, step=7);"
        'os.write(j._descriptor, b\'{"event":"metr\'); os.kill(os.getpid(), signal.SIGKILL)'
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, root], env=environment)
    (key,) = waiting(root)
    assert list(send().sent) == [key]
    run = only_run(client, key)
    assert run.info.status == "KILLED"
    assert history(client, run, "loss") == [(7, 1)]


def test_sent_to_another_server_begins_anew(
    journal: Journal, root: Path, tmp_path: Path, empty_store: Path, store: str, client: MlflowClient
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    journal.metrics({"loss": 1}, step=0)
    assert deliver(f"sqlite:///{tmp_path / 'mlflow.db'}", only=[journal.key], root=root).running == [journal.key]
    journal.finish()
    assert deliver(store, root=root).error is None
    assert history(client, only_run(client, journal.key), "loss") == [(0, 1)]


def test_run_and_experiment_deleted_meanwhile_are_made_again(send: Send, root: Path, client: MlflowClient) -> None:
    journal = Journal.start("pretrain", experiment="short-lived", root=root)
    journal.metrics({"loss": 1}, step=0)
    send(only=[journal.key])
    run = only_run(client, journal.key)
    client.delete_run(run.info.run_id)
    client.delete_experiment(run.info.experiment_id)
    journal.finish()
    assert send().error is None
    again = only_run(client, journal.key)
    assert history(client, again, "loss") == [(0, 1)]


def test_twin_run_of_a_timed_out_request_is_deleted(send: Send, journal: Journal, client: MlflowClient) -> None:
    send(only=[journal.key])
    run = only_run(client, journal.key)
    client.create_run(run.info.experiment_id, tags={RUN_KEY: journal.key})
    journal.finish()
    send()
    assert only_run(client, journal.key).info.run_id == run.info.run_id


def test_refused_event_is_put_aside_and_holds_nothing_up(
    send: Send, journal: Journal, root: Path, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.params({"steps": 11})  # was 10: MLflow does not change a parameter
    journal.metrics({"loss": 1})
    journal.finish()
    assert list(send().sent) == [journal.key]
    run = only_run(client, journal.key)
    assert (run.data.params["steps"], run.data.metrics["loss"]) == ("10", 1)
    aside = root / "rejected" / f"{journal.key}.jsonl"
    assert json.loads(aside.read_text())["params"] == {"steps": "11"}
    assert str(aside) in capsys.readouterr().err
    assert run.data.tags["gcrl.rejected"].startswith("params")


def test_parent_waits_for_its_child(send: Send, root: Path, client: MlflowClient) -> None:
    child = Journal.start("embed", root=root)
    with Journal.start("report", root=root) as parent:
        parent.nest([child.key])
    first = send()
    assert first.pending == [parent.key]
    assert first.error is not None
    assert child.key in first.error
    child.finish()
    assert list(send().sent) == [child.key, parent.key]
    assert only_run(client, child.key).data.tags["mlflow.parentRunId"] == only_run(client, parent.key).info.run_id


def test_a_run_nests_itself_under_another(send: Send, root: Path, client: MlflowClient) -> None:
    parent = Journal.start("report", root=root)
    with Journal.start("certificate", root=root) as child:
        child.nest_under(parent.key)
    with Journal.start("certificate", root=root) as elsewhere:
        elsewhere.nest_under("20200101T000000.000-gone-00000000")
    parent.finish()
    assert send().error is None
    assert only_run(client, child.key).data.tags["mlflow.parentRunId"] == only_run(client, parent.key).info.run_id
    tags = only_run(client, elsewhere.key).data.tags
    assert "mlflow.parentRunId" not in tags
    assert "another tracking server" in tags["gcrl.not_here.20200101T000000.000-gone-00000000"]


def test_reused_run_keeps_its_first_parent(send: Send, root: Path, client: MlflowClient) -> None:
    with Journal.start("embed", root=root) as child:
        pass
    parents = []
    for _ in range(2):
        with Journal.start("report", root=root) as parent:
            parent.nest([child.key, "20200101T000000.000-gone-00000000"])
        parents.append(parent.key)
    assert send().error is None
    first, second = (only_run(client, key) for key in parents)
    run = only_run(client, child.key)
    assert run.data.tags["mlflow.parentRunId"] == first.info.run_id
    assert second.data.tags["gcrl.reused.embed"] == run.info.run_id
    assert "another tracking server" in second.data.tags["gcrl.not_here.20200101T000000.000-gone-00000000"]


def test_many_processes_create_one_store(root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipelines.tracking import Journal, deliver;\n"
        "with Journal.start('probe', sys.argv[2], root=Path(sys.argv[1])) as j: j.metrics({'accuracy': 1})\n"
        "d = deliver(root=Path(sys.argv[1]), only=[j.key]); sys.exit(d.error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, root, f"v{i}"], env=environment, stderr=subprocess.PIPE, text=True
        )
        for i in range(3)
    ]
    outcomes = [(process.communicate()[1], process.returncode) for process in processes]
    assert [code for _, code in outcomes] == [0] * 3, outcomes
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("gcrl")
    assert experiment is not None
    assert experiment.artifact_location == (tmp_path / "mlruns" / "artifacts").as_uri()
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["variant"] for run in runs) == ["v0", "v1", "v2"]
    assert all(run.data.metrics == {"accuracy": 1} for run in runs)


def test_two_uploads_of_one_journal_take_turns(send: Send, root: Path, client: MlflowClient) -> None:
    with Journal.start("pretrain", root=root) as journal:
        for step in range(1000):
            journal.metrics({"loss": step}, step)
    with ThreadPoolExecutor() as pool:
        deliveries = list(pool.map(lambda _: send(only=[journal.key]), range(3)))
    assert [key for delivery in deliveries for key in delivery.sent] == [journal.key]
    assert not any(delivery.error or delivery.pending for delivery in deliveries)
    assert history(client, only_run(client, journal.key), "loss") == [(step, step) for step in range(1000)]


def test_nothing_to_send_asks_nobody(root: Path) -> None:
    assert deliver("http://127.0.0.1:9", root=root) == Delivery()


def test_journal_of_a_newer_version_stays(send: Send, journal: Journal) -> None:
    journal._write("hologram", depth=3)
    journal.finish()
    delivery = send()
    assert delivery.pending == [journal.key]
    assert "newer version" in str(delivery.error)
    assert read_events(journal.folder)[-1].kind == "finish"
