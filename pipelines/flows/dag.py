"""The DAG as DVC knows it: which stages there are, what each needs first, and its `meta:` from dvc.yaml."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.stage import Stage as DvcStage

from components.dataclass_reader import read_dataclass
from components.errors import UserError, nearest


@dataclass(frozen=True)
class Meta:
    """How a stage is to be run: its `meta:` in dvc.yaml, which DVC itself leaves alone."""

    gpu: bool = False  # never beside another such stage
    retries: int = 0
    timeout_seconds: float | None = None  # of one try

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError("retries must not be negative")
        if self.timeout_seconds is not None and self.timeout_seconds <= 0:
            raise ValueError("timeout_seconds must be positive")


@dataclass(frozen=True)
class Stage:
    name: str  # as `dvc repro` takes it: a stage of dvc.yaml, else the path of a .dvc file
    upstreams: tuple[str, ...]
    meta: Meta
    changed: bool  # by `dvc status`; False: up to date unless an upstream gives something new
    always_changed: bool  # it runs every time, as dvc.yaml says


@dataclass(frozen=True)
class Dag:
    root: Path  # the folder with .dvc
    stages: dict[str, Stage]  # every stage stands behind its upstreams


def read_dag(project: Path | str = ".", targets: Iterable[str] | None = None) -> Dag:
    """The stages that lead to `targets`: names of stages, or of groups such as `pretrain`; None means all.

    Waits while another DVC command holds the repository's lock.

    Raises:
        UserError: `project` is no DVC repository, dvc.yaml or a stage's meta is invalid, or a target is unknown.
    """
    try:
        with Repo(str(project), _wait_for_lock=True) as repo, lock_repo(repo):
            root = Path(repo.root_dir)
            graph = repo.index.graph  # its edges point from a stage to its upstreams
            found = {_name(stage, root): stage for stage in repo.index.stages}
            upstreams = {n: tuple(sorted(_name(u, root) for u in graph.successors(s))) for n, s in found.items()}
            wanted = _with_upstreams(upstreams, targets)
            stages = {
                name: _stage(name, upstreams[name], found[name])
                for name in TopologicalSorter(upstreams).static_order()
                if name in wanted
            }
    except DvcException as error:
        # DVC keeps what exactly is wrong with a file in the cause
        raise UserError(f"{error}. {error.__cause__}" if error.__cause__ else str(error)) from error
    return Dag(root, stages)


def _stage(name: str, upstreams: tuple[str, ...], stage: DvcStage) -> Stage:
    meta = read_dataclass(Meta, stage.meta or {}, f"dvc.yaml: meta of {name}")
    return Stage(name, upstreams, meta, _changed(stage), stage.always_changed)


def _name(stage: DvcStage, root: Path) -> str:
    file = Path(stage.path).relative_to(root).as_posix()
    name = getattr(stage, "name", None)
    if name is None:
        return file
    return name if file == "dvc.yaml" else f"{file}:{name}"


def _with_upstreams(upstreams: Mapping[str, Iterable[str]], targets: Iterable[str] | None) -> set[str]:
    if targets is None:
        return set(upstreams)
    wanted: set[str] = set()
    for target in targets:
        reached = [name for name in upstreams if name == target or name.startswith(f"{target}@")]
        if not reached:
            known = sorted({group for name in upstreams for group in (name, name.partition("@")[0])})
            raise UserError(f"targets: no stage {target!r}{nearest(target, known)}. Known: {', '.join(known)}.")
        while reached:
            name = reached.pop()
            if name not in wanted:
                wanted.add(name)
                reached.extend(upstreams[name])
    return wanted


def _changed(stage: DvcStage) -> bool:
    try:
        return bool(stage.status())
    except LockError:  # someone is just running it; whoever reproduces it will see
        return True
