"""Deliver journals to MLflow. Whatever happens here never reaches the stage: it becomes one line of warning."""

import json
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from pipelines.tracking import checks, events, secrets, spool, store
from pipelines.tracking.journal import offline, tracking_folder
from pipelines.tracking.spool import Cursor, Event

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVENTS_A_BATCH = 200  # after so many the position is saved
SYNC = "`make sync` (python -m pipelines tracking sync)"


@dataclass(frozen=True)
class Delivery:
    """What became of the journals: run keys of each kind, MLflow's run id for those that were sent."""

    sent: dict[str, str] = field(default_factory=dict)  # wholly, and removed from disk
    running: list[str] = field(default_factory=list)  # still written
    pending: list[str] = field(default_factory=list)  # kept on disk
    error: str | None = None  # why the first pending one was not sent

    def warning(self, root: Path) -> str:
        """One line: what went wrong, what is kept where, how to send it."""
        count = len(self.pending) + len(self.running)
        runs = "1 run waits" if count == 1 else f"{count} runs wait"
        return (
            f"MLflow: {self.error}. Nothing is lost: {runs} in {root / 'journals'}; the next run or {SYNC} sends them."
        )


def deliver(
    tracking_uri: str | None = None,
    only: Collection[str] | None = None,
    timeout: float = 30.0,
    root: Path | None = None,
    quiet: bool = False,
) -> Delivery:
    """Send the journals on disk, oldest first: all that no living process writes, or `only` those of these run keys.

    A journal that is still written is sent as far as it goes. One whose process died is sent and closed as KILLED.
    `timeout` seconds bound each request; to a server, all of it, and what it uploads extends that. Never raises: a
    failure is printed as one line (unless `quiet`) and returned. Sends nothing where `journal.offline()`.
    """
    if offline():
        return Delivery()
    root = root or tracking_folder()
    spool.sweep(root)
    keys = [key for key in spool.waiting(root) if only is None or key in only]
    running = [key for key in keys if only is None and spool.is_written(root / "journals" / key)]
    delivery = _deliver(
        [key for key in keys if key not in running],
        tracking_uri or store.default_uri(root),
        root,
        timeout,
        patience=timeout if only is not None else 0.0,
    )
    delivery = replace(delivery, running=sorted({*delivery.running, *running}))
    if delivery.error and not quiet:
        print(delivery.warning(root), file=sys.stderr, flush=True)
    return delivery


def promotion_result(run_key: str, root: Path | None = None) -> dict[str, Any] | None:
    """What the `promote` event of this run did (`promotion.propose`), or None while it is not delivered."""
    path = (root or tracking_folder()) / "promotions" / f"{run_key}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _deliver(keys: list[str], uri: str, root: Path, timeout: float, patience: float) -> Delivery:
    if not keys:
        return Delivery()  # and MLflow is not even imported
    sent: dict[str, str] = {}
    running: list[str] = []
    pending: list[str] = []
    errors: list[str] = []
    try:
        client = store.connect(uri, root, timeout)
    except Exception as error:
        return Delivery(pending=keys, error=store.explain(error, uri))
    for position, key in enumerate(keys):
        folder = root / "journals" / key
        try:
            with spool.delivering(folder, patience) as mine:
                if not mine:
                    pending += [key] if folder.exists() else []
                    continue
                run_id, complete = _deliver_journal(client, uri, folder, root)
            if complete:
                sent[key] = run_id
            else:
                running.append(key)
        except Exception as error:
            pending.append(key)
            known = isinstance(error, (UserError, events.WaitsForAnotherError))
            errors.append(str(error) if known else store.explain(error, uri))
            if not _answers(client):
                pending += keys[position + 1 :]
                break
    return Delivery(sent, running, pending, errors[0] if errors else None)


def _deliver_journal(client: "MlflowClient", uri: str, folder: Path, root: Path) -> tuple[str, bool]:
    """Send what is new in a journal; the run's id and whether it was all there will ever be (then it is removed)."""
    alive = spool.is_written(folder)  # asked before reading: if it dies after, its last lines are read next time
    written = spool.read_events(folder)
    start, finished = written[0].fields, written[-1].kind == "finish"
    checks.check_event("start", start)
    if start["key"] != folder.name:
        raise UserError(f"{folder}: holds the journal of another run, {start['key']}.")
    experiment = store.experiment_id(client, uri, start["experiment"])
    cursor = _open_run(client, uri, folder, experiment, written[0])
    target = events.Target(client, cursor.run_id, experiment, start["key"], folder, root)
    for batch in _batches([event for event in written if event.end > cursor.offset]):
        _send(target, batch)
        cursor = replace(cursor, offset=batch[-1].end)
        spool.save_cursor(folder, cursor)
    if alive and not finished:
        return cursor.run_id, False
    if not finished:
        # when the journal last grew
        client.set_terminated(cursor.run_id, "KILLED", (folder / checks.EVENTS).stat().st_mtime_ns // 1_000_000)
    for double in store.find_runs(client, start["key"], [experiment]):
        if double.info.run_id != cursor.run_id:  # empty: the request for it had timed out here, not at the server
            client.delete_run(double.info.run_id)
    spool.remove(folder)
    return cursor.run_id, True


def _open_run(client: "MlflowClient", uri: str, folder: Path, experiment: str, start: Event) -> Cursor:
    """Where the delivery goes on: in the run it began, in one that carries the run key, or in a new one."""
    address = f"{secrets.without_password(uri)} {secrets.fingerprint(uri)}"
    cursor = spool.load_cursor(folder, address)
    if cursor and store.run_exists(client, cursor.run_id):
        return cursor
    key, name = start.fields["key"], start.fields["name"]
    found = store.find_runs(client, key, [experiment])
    run = (
        found[0]
        if found
        else client.create_run(experiment, start.time, {**start.fields["tags"], store.RUN_KEY: key}, run_name=name)
    )
    cursor = Cursor(address, run.info.run_id)
    spool.save_cursor(folder, cursor)
    return cursor


def _batches(new: list[Event]) -> Iterator[list[Event]]:
    """Neighbouring events that go into one batch; every other event alone."""
    for batched, group in groupby(new, lambda event: event.kind in events.BATCHED):
        neighbours, size = list(group), EVENTS_A_BATCH if batched else 1
        yield from (neighbours[i : i + size] for i in range(0, len(neighbours), size))


def _send(target: events.Target, batch: list[Event]) -> None:
    """Send a batch. An event that will never be accepted is put aside, so that it does not hold up the others."""
    from mlflow.exceptions import MlflowException

    try:
        for event in batch:
            checks.check_event(event.kind, event.fields)
        if batch[0].kind in events.BATCHED:
            events.log_batch(target, batch)
        else:
            events.apply(target, batch[0])
    except (MlflowException, FileNotFoundError, UserError) as error:
        if isinstance(error, MlflowException) and error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        if len(batch) > 1:
            for event in batch:
                _send(target, [event])
        else:
            _put_aside(target, batch[0], error)


def _put_aside(target: events.Target, event: Event, error: Exception) -> None:
    path = target.root / "rejected" / f"{target.run_key}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    reason = secrets.mask(" ".join(str(error).split()))[:300]
    with path.open("a") as file:
        file.write(json.dumps({"error": reason, "event": event.kind, "time": event.time, **event.fields}) + "\n")
    target.client.set_tag(target.run_id, "gcrl.rejected", f"{event.kind}: {reason}")
    print(f"MLflow: refused a `{event.kind}` of {target.run_key} ({reason}); it is kept in {path}", file=sys.stderr)


def _answers(client: "MlflowClient") -> bool:
    try:
        client.search_experiments(max_results=1)
    except Exception:
        return False
    return True
