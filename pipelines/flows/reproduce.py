"""The reproduce flow: `dvc repro` with one Prefect task a stage."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed, Failed, State
from pydantic import Field

from components.errors import UserError, os_errors_explained
from pipelines.flows.artifacts import show_outcomes
from pipelines.flows.dvc_runner import Outcome, failed, run_dag, summary
from pipelines.flows.run_names import run_name
from pipelines.flows.workspace import workspace


@flow(name="reproduce", flow_run_name=run_name, persist_result=False)
def reproduce(
    targets: list[str] | None = None,
    force: bool = False,
    parallel: Annotated[int, Field(ge=1)] = 2,
    project: str = ".",
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
) -> State[dict[str, Outcome]]:
    """Bring every stage, or those that lead to `targets`, up to date; independent ones side by side.

    With a preset or overrides the last commit is run in an isolated workspace, and the project's folder stays as it is.

    Args:
        targets: stages, or groups of them such as `pretrain`; all if there are none.
        force: run even what is up to date.
        parallel: stages that run at the same time at most; of those with `gpu: true` in their meta never more than one.
        project: the folder with dvc.yaml.
        preset: the name of a file in presets/, to be used instead of params.yaml.
        overrides: values at dotted keys of params.yaml, such as {"training.steps": 800}.

    Returns:
        Stage → outcome. After a failure the independent stages still run; then the flow fails with its message.
    """
    folder, environment = Path(project), dict[str, str]()
    with ExitStack() as stack:
        try:
            with os_errors_explained():
                if preset or overrides:
                    isolated = stack.enter_context(workspace(project, preset, overrides))
                    folder, environment = isolated.folder, isolated.environment
                outcomes = run_dag(folder, environment, targets, force, parallel)
        except UserError as error:
            return Failed(message=str(error))
        show_outcomes("reproduce", outcomes, folder)
    if failed(outcomes):
        return Failed(message=summary(outcomes), data=None)
    return Completed(message=summary(outcomes), data=outcomes)
