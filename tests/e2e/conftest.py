"""A throw-away project, in which the real commands run: one whole `dvc repro`, whose result all tests share."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COPIED = (
    *("components", "pipelines", "presets", "dvc.yaml", "prefect.yaml", "Makefile", ".gitignore", ".dvcignore"),
    *(".dvc/config", ".dvc/.gitignore", ".dvc/plots"),
)
PLACES = (  # where MLflow's database holds absolute paths
    *(("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    *(("model_versions", "source"), ("model_versions", "storage_location")),
)
STEPS = 30
PARAMS: dict[str, Any] = {
    "seed": 0,
    "data": {
        "image_size": 8,
        "channels": 1,
        "labelled": {"builtin": "digits"},
        "ood": {
            "held-out": {"distance": "near", "held_out_classes": ["4", "7"]},
            "photo-patches": {"distance": "far", "source": {"builtin": "photo-patches", "limit": 100}},
        },
    },
    "model": {
        **{"patch_size": 2, "width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "local_width": 8},
        **{"projection_width": 16, "projection_size": 8},
    },
    "augmentation": {"translate": 0.1, "brightness": 0.2},
    "training": {
        **{"steps": STEPS, "batch_size": 64, "learning_rate": 0.006, "warmup_steps": 2},
        **{"log_every": 5, "evaluate_every": 15, "diagnose_every": 10},
    },
    "variants": {"hybrid": {"w_gen": 1.0, "w_con": 1.0}, "contrastive": {"w_gen": 0.0, "w_con": 1.0}},
    "students": {},
    "embed": {"corruptions": ["contrast", "gaussian_blur"], "severities": [2, 5], "corrupted_images": 60},
    "probe": {"l2": [0.01], "k": [5], "shots": [10], "draws": 1},
    "ood": {"detectors": ["mahalanobis", "knn", "energy", "nll", "fused"], "bootstrap": 50},
    "export": {"batch_sizes": [1, 64]},
    "gate": {"score": ["linear_accuracy", "near_ood_auroc", "far_ood_auroc"]},
    "tracking": {"experiment": "throw-away", "registered_model": "gcrl"},
}


@dataclass(frozen=True)
class Project:
    """A folder with the project's code, a small params.yaml and a git history of its own."""

    root: Path

    def run(self, *command: str, code: int | None = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project and check its exit code (None: any)."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment | variables, capture_output=True, text=True, timeout=300
        )
        assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def dvc(self, *arguments: str, code: int | None = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("dvc", *arguments, code=code, **variables)

    def python(self, *arguments: str, code: int | None = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """`python -m …`"""
        return self.run(sys.executable, "-m", *arguments, code=code, **variables)

    @property
    def environment(self) -> dict[str, str]:
        """This process's, without what would lead to stores and settings outside of the project."""
        foreign = ("MLFLOW_", "DVC_", "GIT_", "PIPELINE_", "MAKE", "MFLAGS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "true",
            "DVC_SITE_CACHE_DIR": str(self.root / ".dvc" / "tmp" / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(self.root / ".dvc" / "tmp" / "global"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GX_ANALYTICS_ENABLED": "false",
            "OMP_NUM_THREADS": "1",
        }

    @property
    def uri(self) -> str:
        """Of the project's own MLflow store."""
        return f"sqlite:///{self.root / 'mlruns' / 'mlflow.db'}"

    def edit(self, changes: dict[str, Any]) -> None:
        """Change params.yaml: {dotted key: new value}; None removes the key."""
        yaml = YAML()
        path = self.root / "params.yaml"
        params = yaml.load(path)
        for dotted, value in changes.items():
            *parents, last = dotted.split(".")
            section = params
            for parent in parents:
                section = section[parent]
            if value is None:
                del section[last]
            else:
                section[last] = value
        yaml.dump(params, path)

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "state")

    def files(self, *folders: str) -> dict[str, str]:
        """Every file under these folders (all of the project's results, where none is named) and a hash of it.

        Lock files are left out: they stay.
        """
        paths = [
            path
            for folder in folders or ("data", "outputs", ".scratch")
            for path in (self.root / folder).rglob("*")
            if path.is_file() and path.suffix != ".lock"
        ]
        return {str(p.relative_to(self.root)): hashlib.md5(p.read_bytes()).hexdigest() for p in sorted(paths)}

    def copy(self, to: Path) -> "Project":
        """The same project elsewhere, with results, DVC's cache and MLflow's store."""
        shutil.copytree(self.root, to, ignore=shutil.ignore_patterns("site", "__pycache__"))
        if (to / "mlruns").exists():  # the store knows its artifacts by their absolute place
            with sqlite3.connect(to / "mlruns" / "mlflow.db") as database:
                for table, column in PLACES:
                    moved = (str(self.root), str(to))
                    database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", moved)
            database.close()
        return Project(to)


def new_project(root: Path, params: dict[str, Any]) -> Project:
    """The project as it comes out of `git clone`, with these parameters."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    YAML().dump(params, root / "params.yaml")
    project = Project(root)
    project.run("git", "init", "--quiet")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@localhost")
    project.commit()
    return project


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which nothing has run; not to be changed."""
    return new_project(tmp_path_factory.mktemp("fresh") / "project", PARAMS)


@pytest.fixture(scope="session")
def finished(
    fresh: Project, made_once: Callable[[str, Callable[[Path], None]], Path], tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """A project after a whole `dvc repro`, committed; not to be changed. What it printed is in ../repro.log.

    It ran once, and each of xdist's workers has a copy: DVC's commands in one folder wait for each other.
    """

    def make(folder: Path) -> None:
        project = fresh.copy(folder / "project")
        done = project.dvc("repro")
        (folder / "repro.log").write_text(done.stdout + done.stderr)
        project.commit()

    once, own = made_once("finished-once", make), tmp_path_factory.mktemp("finished")
    shutil.copyfile(once / "repro.log", own / "repro.log")
    return Project(once / "project").copy(own / "project")


@pytest.fixture
def scratch(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, to be changed at will."""
    return finished.copy(tmp_path / "project")


@dataclass(frozen=True)
class Told:
    """What a command that ran inside this process came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def stage(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Told]]:
    """`stage(project, NAME, …)` is `python -m pipelines.stages NAME …`, without the start of another process.

    Its journals go to a store that exists already: making one takes MLflow ten seconds.
    """
    import torch

    store = tmp_path / "store.db"
    shutil.copyfile(finished.root / "mlruns" / "mlflow.db", store)

    def call(project: Project, *arguments: str) -> Told:
        from pipelines.stages.__main__ import main

        monkeypatch.chdir(project.root)
        for name, value in project.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        capfd.readouterr()
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = int(exit.code or 0)
        told = capfd.readouterr()
        return Told(code, told.out, told.err)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as OMP_NUM_THREADS does for a process of its own
    yield call
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def mlflow_ui(finished: Project, listening: Callable[..., str]) -> str:
    """The address of an MLflow server over the finished project's store, with the settings of `make ui`."""
    lines = (ROOT / "mlflow" / "server.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return listening(finished.root, "server", **settings)
