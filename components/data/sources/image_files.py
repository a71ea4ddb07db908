"""Where the images of a run lie: told without opening one, and without importing anything heavy."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.data.config import DataConfig, Source
from components.errors import UserError


class Members(NamedTuple):
    """The image files of a folder: directly inside and of no class, or by the sub-folder that names their class."""

    classes: tuple[str, ...]
    files: list[list[os.DirEntry[str]]]  # a list a class; a single one where there are no classes


def sources_by_role(config: DataConfig) -> dict[str, Source]:
    """Everything to be read: `labelled`, `test`, `pretrain` and `ood-NAME`, where they are given."""
    sources = {"labelled": config.labelled}
    if config.test is not None:
        sources["test"] = config.test
    if config.pretrain is not None:
        sources["pretrain"] = config.pretrain
    return sources | {f"ood-{name}": ood.source for name, ood in config.ood.items() if ood.source is not None}


def key_of(role: str) -> str:
    """Where the source of a role stands in params.yaml."""
    return f"data.ood.{role.removeprefix('ood-')}.source" if role.startswith("ood-") else f"data.{role}"


def folder_members(folder: Path, key: str) -> Members:
    """Images directly inside (unlabelled), or one sub-folder a class, searched to any depth; hidden ones are none.

    `key` is the folder's place in params.yaml, for messages.
    Raises a UserError where it is no folder, is empty, holds both files and folders, or a class without files.
    """
    if not folder.is_dir():
        section = key.removesuffix(".folder").removesuffix(".source")
        without = "" if section == "data.labelled" else f", or remove {section} from params.yaml: it is optional"
        raise UserError(f"{key}: {folder} is not a folder. Give the path of a folder of images{without}.")
    entries = sorted(_visible(folder), key=lambda entry: entry.name)
    directories = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if entry.is_file()]
    if files and directories:
        raise UserError(
            f"{key}: {folder} holds files ({files[0].name}) and folders ({directories[0].name}). "
            "Put images directly inside (unlabelled), or in one sub-folder a class, not both."
        )
    if not entries:
        raise UserError(f"{key}: {folder} is empty. Put images into it, or one sub-folder of images a class.")
    members = [list(visible_files(directory)) for directory in directories]
    for directory, found in zip(directories, members, strict=True):
        if not found:
            raise UserError(f"{key}: the class folder {directory.path} holds no files. Fill it or remove it.")
    return Members(tuple(directory.name for directory in directories), members or [files])


def visible_files(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """Files below a folder, in no order. Hidden ones, and what a link to a folder leads to, are left out."""
    for entry in _visible(folder):
        if entry.is_dir():
            if not entry.is_symlink():
                yield from visible_files(entry)
        elif entry.is_file():
            yield entry


def parquet_files(patterns: str | Iterable[str], key: str) -> list[Path]:
    """The Parquet files that a file, a folder of them or a glob pattern names, or several of these, in their order."""
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    return [file for pattern in patterns for file in _expand(pattern, key)]


def list_sources(config: DataConfig) -> dict[str, Mapping[str, Any]]:
    """What each role's source holds: how many files, and a fingerprint that changes if one comes, goes or changes.

    A file is known by its place in the source, its size and the time it was last written. The sets that come with
    scikit-learn and torchvision never change, so that their name is all there is to tell.
    Raises a UserError where a folder or file is missing, as `prepare` does.
    """
    return {role: _listing(source, key_of(role)) for role, source in sources_by_role(config).items()}


def _listing(source: Source, key: str) -> dict[str, Any]:
    if source.folder is not None:
        root = Path(source.folder)
        members = folder_members(root, f"{key}.folder")
        found = ((os.path.relpath(entry.path, root), entry.stat()) for files in members.files for entry in files)
    elif source.parquet is not None:
        found = ((str(file), file.stat()) for file in parquet_files(source.parquet, f"{key}.parquet"))
    else:
        return {"name": source.builtin or source.torchvision}
    lines = sorted(f"{name}\0{status.st_size}\0{status.st_mtime_ns}" for name, status in found)
    digest = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape"))
    return {"name": source.folder or source.parquet, "files": len(lines), "fingerprint": digest.hexdigest()}


def _visible(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _expand(pattern: str, key: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    # Path.glob takes no absolute pattern
    names = path.glob("*.parquet") if path.is_dir() else map(Path, glob.glob(pattern))  # noqa: PTH207
    files = sorted(names)
    if not files:
        raise UserError(f"{key}: {pattern} matches no Parquet file. Give a file, a folder of *.parquet or a pattern.")
    return files
