"""Isolated workspaces: a clone of the project in which a scheduled run works, so that nobody's working tree changes.

A workspace lies in `.dvc/tmp/workspaces/` and stays there: a killed training resumes in it, and an unchanged run finds
everything up to date. It shares the project's DVC cache (files are linked, not copied), image folders and tracking.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from dvc.config import Config
from prefect.context import FlowRunContext
from prefect.logging import get_logger, get_run_logger
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.data.config import DataConfig
from components.data.sources.image_files import key_of, sources_by_role
from components.errors import UserError
from components.locks import HeldError, locked
from pipelines.config.overrides import write_params
from pipelines.config.params import PARAMS, Params
from pipelines.config.presets import PRESETS, find
from pipelines.flows.commit import git, last_commit, uncommitted
from pipelines.tracking.journal import FOLDER_VARIABLE, TAGS_VARIABLE

PLACE = Path(".dvc/tmp/workspaces")  # DVC leaves its tmp alone, and git ignores it
MAX_NAME = 80  # characters of a workspace's folder


@dataclass(frozen=True)
class Workspace:
    """A copy of the project, locked for this run."""

    folder: Path  # where params.yaml and dvc.yaml lie
    environment: dict[str, str]  # what commands in it need on top of this process's own
    params: Params


@contextmanager
def workspace(
    project: Path | str = ".", preset: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Iterator[Workspace]:
    """The project as last committed, with the parameters of a preset (else its own) and `overrides` at dotted keys.

    The same preset and overrides give the same workspace again, brought up to the last commit.

    Raises:
        UserError: no git repository, no commit, not a DVC project, or another run is using the workspace.
        ConfigError: the preset, an override, or params.yaml itself is invalid.
    """
    project = Path(project).resolve()
    commit = last_commit(project)
    clone = project / PLACE / _name(preset, overrides or {})
    with _locked(clone):
        new = not clone.exists()
        try:
            _update(clone, project, commit)
            folder = clone / git(project, "rev-parse", "--show-prefix")
            params = write_params(_params_file(preset, folder, project), overrides or {}, folder / PARAMS)
            _configure_dvc(folder, project)
            _link_images(params.data, folder, project)
            for weights in filter(None, map(params.weights_of, params.variants)):
                _link(str(weights), "training.start_from or encoder.weights", folder, project)
        except UserError:
            if new:  # of no use to anyone
                shutil.rmtree(clone, ignore_errors=True)
            raise
        _warn_of_changes(project)
        yield Workspace(folder, _environment(project, preset, overrides or {}), params)


def _environment(project: Path, preset: str | None, overrides: Mapping[str, Any]) -> dict[str, str]:
    tags = {"preset": preset} if preset else {}
    tags |= {"overrides": json.dumps(dict(overrides), default=str)} if overrides else {}
    environment = {FOLDER_VARIABLE: str(project / ".tracking"), TAGS_VARIABLE: json.dumps(tags)}
    prefix, uri = "sqlite:///", os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith(prefix):  # a relative path is meant from here
        environment["MLFLOW_TRACKING_URI"] = f"{prefix}{Path(uri.removeprefix(prefix)).resolve()}"
    return environment


def _params_file(preset: str | None, folder: Path, project: Path) -> Path:
    if preset is None:
        return folder / PARAMS
    file = PRESETS / f"{preset}.yaml"
    if (project / file).exists() and not (folder / file).exists():
        raise UserError(f"{file} is not committed, and an isolated run takes the last commit. Commit it first.")
    return find(preset, folder / PRESETS)


def _name(preset: str | None, overrides: Mapping[str, Any]) -> str:
    """Readable, and different for different parameters."""
    readable = "-".join([preset or "project", *(f"{key}={overrides[key]}" for key in sorted(overrides))])
    name = re.sub(r"[^\w.=-]+", "_", readable)[:MAX_NAME]
    if overrides:
        settings = json.dumps(dict(overrides), sort_keys=True, default=str)
        name += f"-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    return name


@contextmanager
def _locked(clone: Path) -> Iterator[None]:
    context = FlowRunContext.get()
    run = f"flow run {context.flow_run.name}" if context and context.flow_run else ""
    try:
        with locked(clone.with_name(f"{clone.name}.lock"), seconds=0, note=run):
            yield
    except HeldError as error:
        raise UserError(f"{clone}: in use by {error.holder}. Wait until it ends, or cancel it.") from error


def _update(clone: Path, project: Path, commit: str) -> None:
    """Bring the clone to the commit. Every step may be repeated, so a clone that was killed half-way is completed."""
    try:
        _checkout(clone, project, commit)
    except UserError:
        # What a killed git left (lock files, half an index) is in .git; what runs have left lies beside it.
        shutil.rmtree(clone / ".git", ignore_errors=True)
        _checkout(clone, project, commit)


def _checkout(clone: Path, project: Path, commit: str) -> None:
    clone.mkdir(exist_ok=True)
    if not (clone / ".git").is_dir():
        git(clone, "init", "--quiet")
    lock = Path(git(project, "rev-parse", "--show-prefix")) / "dvc.lock"
    before = _committed(clone, f"HEAD:{lock}")
    address = Path(git(project, "rev-parse", "--show-toplevel")).as_uri()  # a plain path would bring all of history
    git(clone, "fetch", "--quiet", "--no-tags", "--depth", "1", address, commit)
    # What the workspace has recorded since goes on, unless the project has committed results of its own meanwhile.
    # Nothing is lost then either: DVC's run cache knows all that ever ran here, only more slowly.
    recorded = _recorded(clone / lock) if before == _committed(clone, f"{commit}:{lock}") else None
    git(clone, "checkout", "--quiet", "--force", "--detach", commit)
    git(clone, "clean", "--quiet", "--force", "-d")  # an old module beside the code would count as code
    if recorded is not None:
        (clone / lock).write_bytes(recorded)


def _committed(clone: Path, file: str) -> str:
    """The hash of a committed file, "" where there is none."""
    return git(clone, "rev-parse", "--verify", "--quiet", file, check=False)


def _recorded(lock: Path) -> bytes | None:
    """dvc.lock as it is, or None where a killed run has left half of it."""
    try:
        recorded = lock.read_bytes()
        YAML(typ="safe").load(recorded)
    except (OSError, YAMLError):
        return None
    return recorded


def _configure_dvc(folder: Path, project: Path) -> None:
    """The project's cache and remotes, whose relative paths would be wrong here."""
    own = Config(str(project / ".dvc"), validate=False)
    local = folder / ".dvc" / Config.CONFIG_LOCAL
    local.unlink(missing_ok=True)
    with Config(str(folder / ".dvc")).edit("local") as config:
        config.update(own.load_one("local"))
        config["remote"] = {
            name: {key: str(value) for key, value in remote.items()} for name, remote in own["remote"].items()
        }
        config["cache"] |= {
            "dir": str(own["cache"].get("dir") or project / ".dvc" / "cache"),
            "type": ["reflink", "hardlink", "symlink", "copy"],
        }


def _link_images(data: DataConfig, folder: Path, project: Path) -> None:
    """Make image sets that are named relative to the project, and are not in git, reachable under the same names."""
    for role, source in sources_by_role(data).items():
        key = key_of(role)
        if source.torchvision is not None and not Path(source.root).is_absolute():
            (project / source.root).mkdir(parents=True, exist_ok=True)  # what one run downloads serves all
            _link(source.root, f"{key}.root", folder, project)
        if source.folder is not None:
            _link(source.folder, f"{key}.folder", folder, project)
        patterns = (source.parquet,) if isinstance(source.parquet, str) else source.parquet or ()
        for pattern in patterns:
            found = glob(pattern, root_dir=project) if has_magic(pattern) else [pattern]  # noqa: PTH207
            for file in found:
                _link(file, f"{key}.parquet", folder, project)


def _link(path: str, key: str, folder: Path, project: Path) -> None:
    if Path(path).is_absolute():
        return
    if not Path(os.path.normpath(project / path)).is_relative_to(project):
        raise UserError(f"{key}: {path} leads out of the project; an isolated run needs an absolute path there.")
    place = folder / path
    if not place.parent.resolve().is_relative_to(folder):
        return  # inside another set, which is linked as a whole
    if place.is_symlink() and not place.exists():
        place.unlink()  # the project was moved
    if not place.exists() and (project / path).exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(project / path)


def _warn_of_changes(project: Path) -> None:
    changed = uncommitted(project)
    if changed:
        logger = get_run_logger() if FlowRunContext.get() else get_logger("workspace")
        logger.warning("Not in this run, because not committed: changes in %s", ", ".join(changed))
