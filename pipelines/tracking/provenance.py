"""Where a run comes from: commit, versions, hardware. All of it as MLflow tags, none of it ever an error."""

import getpass
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from components.cores import usable_cores

PACKAGES = (
    "torch",
    "torchvision",
    "mlflow",
    "dvc",
    "great-expectations",
    "onnx",
    "onnxruntime",
    "scikit-learn",
    "numpy",
)

GIT_TAGS = ("mlflow.source.git.commit", "git.dirty")


def provenance() -> dict[str, str]:
    """Tags that tell where this process's results come from; what cannot be found out is left out."""
    return {**source(), **git_commit(), **versions(), **hardware()}


def source() -> dict[str, str]:
    """Source and user, as MLflow's run table shows them, and the run of `mlflow run` that this process is part of."""
    main = sys.modules["__main__"].__spec__
    name = main.name.removesuffix(".__main__") if main else Path(sys.argv[0]).name
    project = {"project_run": os.environ["MLFLOW_RUN_ID"]} if "MLFLOW_RUN_ID" in os.environ else {}
    return {"mlflow.source.name": name, "mlflow.source.type": "LOCAL", "mlflow.user": user(), **project}


def user() -> str:
    """The login name of whoever runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())


def git_commit() -> dict[str, str]:
    """The commit, and whether tracked files differ from it (dvc.lock aside, which DVC rewrites during a run)."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)dvc.lock")
    return dict(zip(GIT_TAGS, (commit, str(bool(changed)).lower()), strict=True))


def versions() -> dict[str, str]:
    """Python and the packages that results depend on, as installed."""
    installed = {"version.python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def hardware() -> dict[str, str]:
    """CPU model, usable cores, memory and the GPUs."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    found = {
        "hardware.cpu": names[0] if names else platform.machine(),
        "hardware.cores": str(usable_cores()),
        "hardware.memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
    }
    gpus = _gpus()
    return {**found, "hardware.gpu": ", ".join(gpus)} if gpus else found


def _gpus() -> list[str]:
    try:
        import pynvml
    except ImportError:  # a machine without the stack, whose study names its GPU
        return []
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError:
        return []


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
