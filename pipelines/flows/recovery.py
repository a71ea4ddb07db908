"""Flow runs that nobody else will end, because a server, a worker or its machine was killed: they count as crashed.

A run holds its place in the queue, and its deployment's slot, until it ends. Two automations of the server see to that,
and a worker that starts looks for what the server has missed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import Event, RelatedResource, Resource
from prefect.states import Crashed

HEARTBEAT_SECONDS = 30  # how often a run that a worker started says that it is alive
SILENCE = timedelta(minutes=5)
# From Pending to Running, a run of the process pool takes seconds; where the server is away, a worker that lives gives
# up within four minutes. So a run that has been Pending for this long is in nobody's hands.
UNSTARTED = timedelta(minutes=5)
WATCH = "gcrl.flow-run.unstarted"  # starts the same clock as the run's own event Pending, if that was lost
NO_START = f"It did not begin within {UNSTARTED}: the server or the worker was killed while it was being submitted."
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
# the other states that a run may leave Pending for: it is at work, or waits for a worker again
STARTS = ("Running", "Retrying", "Cancelling", "Paused", "Suspended")
WAITS = ("Scheduled", "Late", "Resuming", "AwaitingRetry", "AwaitingConcurrencySlot")


def automations(pool: str) -> list[AutomationCore]:
    """The automations for runs that fell silent, on the whole server, and for runs of this pool that never began."""
    beat = "prefect.flow-run.heartbeat"
    silent = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        after={beat},
        expect={beat, *_events(*ENDS)},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )
    # of this pool alone: elsewhere a run may be Pending for as long as its image is being fetched
    unstarted = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "work-pool", "prefect.resource.name": pool},
        after={WATCH, *_events("Pending")},
        expect=_events(*ENDS, *STARTS, *WAITS),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=UNSTARTED,
    )
    return [
        AutomationCore(
            name="crash silent flow runs",
            description=f"A flow run that gave no sign of life for {SILENCE} counts as crashed, and frees its place.",
            trigger=silent,
            actions=[_crash(f"No sign of life for {SILENCE}: the process, or the worker's machine, is gone.")],
        ),
        AutomationCore(
            name="crash flow runs that never began",
            description=f"A flow run that is Pending for {UNSTARTED} counts as crashed, and frees its place.",
            trigger=unstarted,
            actions=[_crash(NO_START)],
        ),
    ]


def ensure_automations(client: SyncPrefectClient, pool: str) -> None:
    """Create the automations, or bring them up to date.

    One that is as it should be is left alone: with an update the server forgets which runs it was watching, and
    `make deploy` is what starts a server that was killed.
    """
    for automation in automations(pool):
        known = client.read_automations_by_name(automation.name)
        if not known:
            client.create_automation(automation)
        elif known[0].model_dump(include=set(AutomationCore.model_fields)) != automation.model_dump():
            client.update_automation(known[0].id, automation)


def end_unstarted(client: SyncPrefectClient, pool: str) -> Iterator[FlowRun]:
    """Crash the runs of this pool that have been Pending for too long; yields them.

    A younger one may be in the hands of another worker. The automation is told of it, because the event from when it
    became Pending may have died with the server.
    """
    pending = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])))
    mine = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    for run in client.read_flow_runs(flow_run_filter=pending, work_pool_filter=mine):
        assert run.state is not None
        if datetime.now(UTC) - run.state.timestamp < UNSTARTED:
            _watch(client, run, pool)
        else:
            client.set_flow_run_state(run.id, Crashed(message=NO_START))
            yield run


def _watch(client: SyncPrefectClient, run: FlowRun, pool: str) -> None:
    related = {
        "prefect.resource.id": f"prefect.work-pool.{client.read_work_pool(pool).id}",
        "prefect.resource.role": "work-pool",
        "prefect.resource.name": pool,
    }
    event = Event(
        event=WATCH,
        resource=Resource({"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name}),
        related=[RelatedResource(related)],
    )
    client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()


def _events(*states: str) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def _crash(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, force=False, message=message)
