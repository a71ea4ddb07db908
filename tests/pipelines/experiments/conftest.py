"""A small study of digits, run once by a Python that has nothing but what a bare GPU machine has."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines.experiments.pack import pack
from pipelines.experiments.study_file import make_plan
from tests.pipelines.experiments.archives import MEMBER, Files

ROOT = Path(__file__).parents[3]
ABSENT = (
    *("prefect", "mlflow", "dvc", "pydantic", "great_expectations", "matplotlib", "onnxruntime", "onnxscript", "yaml"),
    *("ruamel", "psutil", "pynvml", "tqdm", "pandas", "rich", "sqlalchemy", "hypothesis", "pytest"),
)

# Not an import that fails, but packages that are not there: importlib.util.find_spec finds none either.
BARE = """
import importlib.machinery as machinery, sys
absent = set(sys.argv.pop(1).split(","))

class Finder(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path = [finder for finder in sys.meta_path if finder is not machinery.PathFinder] + [Finder]
exec(sys.argv.pop(1))
from pipelines.experiments.__main__ import main
code = main()
assert not absent & set(sys.modules), absent & set(sys.modules)
sys.exit(code)
"""


def run_bare(*arguments: str | Path, before: str = "", code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """`python -m pipelines.experiments …` without the stack, after the code `before`; checks the exit code."""
    command = [sys.executable, "-c", BARE, ",".join(ABSENT), before, *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PIPELINE_"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert code is None or done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


PARAMS: dict[str, Any] = {
    "seed": 0,
    "data": {
        "image_size": 8,
        "channels": 1,
        "labelled": {"builtin": "digits", "limit": 400},
        "ood": {
            "held-out": {"distance": "near", "held_out_classes": ["4", "7"]},
            "shuffled": {"distance": "far", "shuffled_test": True},
        },
    },
    "model": {
        **{"patch_size": 2, "width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "local_width": 8},
        **{"projection_width": 16, "projection_size": 8},
    },
    "augmentation": {"translate": 0.1, "brightness": 0.2},
    "training": {
        **{"steps": 20, "batch_size": 64, "learning_rate": 0.006, "warmup_steps": 2, "checkpoint_seconds": 0},
        **{"log_every": 5, "evaluate_every": 10, "diagnose_every": 10, "precision": "float32", "device": "cpu"},
    },
    "variants": {"hybrid": {"w_gen": 1.0, "w_con": 1.0}, "contrastive": {"w_gen": 0.0, "w_con": 1.0}},
    "students": {},
    "embed": {"corruptions": ["contrast"], "severities": [3], "corrupted_images": 20, "layer_images": 100},
    "probe": {"l2": [0.01], "k": [5], "shots": [1, 10], "draws": 2},
    "ood": {"detectors": ["mahalanobis", "knn", "energy", "nll", "fused"], "bootstrap": 50},
    "export": {"batch_sizes": [1, 64]},
    "gate": {"score": ["linear_accuracy", "near_ood_auroc", "far_ood_auroc"]},
    "tracking": {"experiment": "studies", "registered_model": "studied"},
}
STUDY: dict[str, Any] = {
    "seeds": [3],
    "baselines": True,
    "peak_tflops": 0.5,
    "models": {"hybrid": {}, "wide": {"variant": "contrastive", "model.width": 24}},
}


@pytest.fixture(scope="session")
def bare() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_bare


@pytest.fixture(scope="session")
def write_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`write_study(seeds=[1])` is a study file with these keys, beside the params file that it names."""

    def write(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("files")
        YAML().dump(PARAMS, folder / "params.yaml")
        path = folder / "small.yaml"
        YAML().dump({"params": str(folder / "params.yaml"), **STUDY, **changes}, path)
        return path

    return write


@pytest.fixture(scope="session")
def finished(write_study: Callable[..., Path], made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The folder of a study that has run; not to be changed. What it printed is in printed.txt."""

    def make(folder: Path) -> None:
        make_plan(write_study(), folder / "small")
        done = run_bare("run", folder / "small")
        (folder / "small" / "printed.txt").write_text(done.stdout + done.stderr)

    return made_once("study", make) / "small"


@pytest.fixture(scope="module")
def valid(finished, tmp_path_factory) -> Files:
    """The files of a packed study of one model, without its large ones."""
    folder = tmp_path_factory.mktemp("valid")
    pack(finished, folder, 16, 8)
    with tarfile.open(folder / "study.tar.000") as archive:
        content = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    kept = {name: data for name, data in content.items() if name.startswith(MEMBER) or "/" not in name}
    return {name: data for name, data in kept.items() if not name.endswith((".parquet", ".safetensors"))}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project, being the present folder; a secret and the fetched study lie beside it."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "PIPELINE_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "project").mkdir()
    (tmp_path / "secret.json").write_text('{"password": "secret"}')
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"
