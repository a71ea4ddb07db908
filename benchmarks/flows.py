"""What Prefect costs and gives over plain `dvc repro`, and whether it keeps its promises under load and SIGKILL.

    python -m benchmarks.flows [--only cached evaluation concurrent killed] [--json FILE]

In a clone of HEAD that shares this folder's DVC cache, beside a Prefect server of its own on a free port; what the
cache lacks of the present run is trained first. Minutes, on an otherwise idle machine:

cached      everything up to date: `dvc repro` against the reproduce flow on the running server
evaluation  embed … compare of every variant, pretraining cached: serial `dvc repro` against the flow, 1 and 2 at a time
concurrent  20 runs of the cached flow at once against one server
killed      a worker killed by SIGKILL in mid-training: what is left of it, and whether the next run ends alike
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from ruamel.yaml import YAML

from components.training.device import describe_hardware

REPETITIONS = 3
RUNS = 20
KILLED_STEPS = 200
CODE = (  # one file that each stage of the evaluation part depends on, and nothing before it
    "components/evaluation/features/embed.py",
    *(f"pipelines/stages/{stage}.py" for stage in ("probe", "ood", "export", "report", "compare")),
)
Row = dict[str, float | int | str | bool]


class Site:
    """The clone and its server."""

    def __init__(self, place: Path) -> None:
        self.root = place / "project"
        clone(self.root, shared_cache=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{ours.get('PATH', os.defpath)}"
        self.environment = ours | {"PATH": path, "PORT": str(self.port), "ACTIVE": "false"}

    def run(self, *command: str, folder: Path | None = None, **variables: str) -> float:
        """Run a command to its end; returns the seconds that it took."""
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=folder or self.root, env=self.environment | variables, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return time.monotonic() - began

    def repro(self, *arguments: str, folder: Path | None = None) -> float:
        return self.run("dvc", "--quiet", "repro", *arguments, folder=folder)

    def flow(self, **parameters: int) -> float:
        given = [f"{name}={value}" for name, value in parameters.items()]
        return self.run(sys.executable, "-m", "pipelines", "flow", "reproduce", *given, PREFECT_API_URL=self.url)

    def pipelines(self, command: str) -> None:
        self.run(sys.executable, "-m", "pipelines", command)

    def worker(self, folder: Path) -> psutil.Popen:
        command = [sys.executable, "-m", "pipelines", "worker"]
        environment = self.environment | {"PREFECT_API_URL": self.url}
        quiet = subprocess.DEVNULL
        return psutil.Popen(command, cwd=folder, env=environment, stdout=quiet, stderr=quiet)


def clone(root: Path, shared_cache: bool) -> None:
    subprocess.run(["git", "clone", "--quiet", ".", str(root)], check=True)
    if shared_cache:
        cache = subprocess.run(["dvc", "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run(["dvc", "cache", "dir", "--local", str(Path(cache).resolve())], cwd=root, check=True)


def cached(site: Site) -> Row:
    plain = statistics.median(site.repro() for _ in range(REPETITIONS))
    flow = statistics.median(site.flow() for _ in range(REPETITIONS))
    stages = stage_count(site)
    return {
        "dvc repro, s": plain,
        "flow, s": flow,
        "more, s": flow - plain,
        "stages": stages,
        "more a stage, s": (flow - plain) / stages,
    }


def evaluation(site: Site) -> Row:
    ways: dict[str, Callable[[], float]] = {
        "dvc repro, s": site.repro,
        "flow, 1 at a time, s": lambda: site.flow(parallel=1),
        "flow, 2 at a time, s": lambda: site.flow(parallel=2),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPETITIONS):
        for name, way in ways.items():  # in turn, so that a slow minute of the machine meets them all
            touch(site.root)
            times[name].append(way())
    row: Row = {name: statistics.median(each) for name, each in times.items()}
    variants = len(YAML(typ="safe").load(site.root / "params.yaml")["variants"])
    stages = variants * (len(CODE) - 1) + 1
    row["stages run"] = stages
    row["more a stage run, s"] = (float(row["flow, 1 at a time, s"]) - float(row["dvc repro, s"])) / stages
    row["speed-up"] = float(row["dvc repro, s"]) / float(row["flow, 2 at a time, s"])
    return row


def touch(root: Path) -> None:
    """Change the code of the evaluation stages, though not what it does: DVC must run each of them again."""
    for name in CODE:
        lines = (root / name).read_text().splitlines()
        kept = [line for line in lines if not line.startswith("# benchmark ")]
        (root / name).write_text("\n".join([*kept, f"# benchmark {uuid.uuid4()}", ""]))


def concurrent(site: Site) -> Row:
    stages = stage_count(site)
    before = {run.id for run in flow_runs(site)}
    command = [sys.executable, "-m", "pipelines", "flow", "reproduce"]
    environment = site.environment | {"PREFECT_API_URL": site.url}
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        processes = [
            subprocess.Popen(command, cwd=site.root, env=environment, stdout=log, stderr=log) for _ in range(RUNS)
        ]
        codes = [process.wait() for process in processes]
    seconds = time.monotonic() - began
    runs = [run for run in flow_runs(site) if run.id not in before]
    return {
        "flow runs": RUNS,
        "messages": "; ".join(sorted({str(run.state.message) for run in runs})),
        "seconds": seconds,
        "exit codes other than 0": sum(map(bool, codes)),
        "completed on the server": sum(run.state_name == "Completed" for run in runs),
        "task runs expected": RUNS * stages,
        "task runs completed": sum(completed_tasks(site, run.id) for run in runs),
    }


def killed(site: Site) -> Row:
    """In clones with a DVC cache of their own, or the second training would be taken from it."""
    whole, hit = site.root.parent / "whole", site.root.parent / "killed"
    for root in (whole, hit):
        clone(root, shared_cache=False)
        yaml = YAML()
        params = yaml.load(root / "params.yaml")
        params["training"] |= {"steps": KILLED_STEPS, "checkpoint_seconds": 0.5}
        yaml.dump(params, root / "params.yaml")
    variant = next(iter(params["variants"]))
    target, weights = f"pretrain@{variant}", f"outputs/{variant}/pretrain/model.safetensors"
    site.repro(target, folder=whole)

    run = create_run(site, {"targets": [target]})
    worker = site.worker(hit)
    try:
        wait_for(lambda: list((hit / ".scratch").glob("*/resume.pt")), "resume file")
    finally:
        worker.kill()
        worker.wait()
    died = time.monotonic()
    state = wait_for(lambda: final_state(site, run), "end of the killed run")
    told = time.monotonic() - died
    wait_for(lambda: not processes_in(hit), "end of the killed run's processes")
    gone = time.monotonic() - died
    interrupted = not (hit / weights).exists()

    run = create_run(site, {"targets": [target]})
    worker = site.worker(hit)
    try:
        again = wait_for(lambda: final_state(site, run), "end of the second run")
    finally:
        worker.kill()
        worker.wait()
    return {
        "interrupted in mid-training": interrupted,
        "state of the killed run": state,
        "known after, s": told,
        "no process left after, s": gone,
        "state of the next run": again,
        "same model, bit for bit": (hit / weights).read_bytes() == (whole / weights).read_bytes(),
    }


# the server, asked in this process


def flow_runs(site: Site) -> list[Any]:
    with client(site) as api:
        return list(api.read_flow_runs(limit=200))


def completed_tasks(site: Site, run: uuid.UUID) -> int:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with client(site) as api:
        tasks = api.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])), limit=200)
    return sum(task.state_name == "Completed" for task in tasks)


def create_run(site: Site, parameters: Mapping[str, Any]) -> uuid.UUID:
    from prefect.states import Scheduled

    with client(site) as api:
        deployment = api.read_deployment_by_name("reproduce/on-demand")
        run = api.create_flow_run_from_deployment(deployment.id, parameters=dict(parameters), state=Scheduled())
        return run.id


def final_state(site: Site, run: uuid.UUID) -> str | None:
    with client(site) as api:
        state = api.read_flow_run(run).state
    return state.name if state is not None and state.is_final() else None


def client(site: Site) -> Any:
    from prefect.client.orchestration import SyncPrefectClient

    return SyncPrefectClient(site.url)


def stage_count(site: Site) -> int:
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only"], cwd=site.root, check=True, capture_output=True, text=True
    )
    return len(listed.stdout.split())


def processes_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder):
                found.append(process.pid)
    return found


def wait_for(find: Callable[[], Any], what: str, seconds: float = 600) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} after {seconds:.0f} seconds")
        time.sleep(0.05)
    return found


def main() -> None:
    parts: dict[str, Callable[[Site], Row]] = {part.__name__: part for part in (cached, evaluation, concurrent, killed)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="benchmark-flows-")).resolve()
    site = Site(place)
    results: dict[str, Any] = {"hardware": f"{os.cpu_count()} cores; {describe_hardware(torch.device('cpu'))}"}
    try:
        site.run("dvc", "--quiet", "checkout", "--allow-missing")
        site.repro()
        site.pipelines("deploy")
        for name in options.only:
            row = {
                key: round(value, 2) if isinstance(value, float) else value for key, value in parts[name](site).items()
            }
            results[name] = row
            print(f"\n| {name} | |\n|---|---:|")
            for key, value in row.items():
                print(f"| {key} | {value:.2f} |" if isinstance(value, float) else f"| {key} | {value} |", flush=True)
    finally:
        site.pipelines("undeploy")
        shutil.rmtree(place)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
