"""The files of a folder that another process fills, and which of them were there already."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from components.data.sources.file_kinds import is_image, shown, suffix_of
from components.data.sources.image_files import visible_files
from components.errors import UserError
from components.files import read_json, write_json


class IncomingFile(NamedTuple):
    """A file as it was found. Another size or time of writing makes it another file."""

    name: str  # its place in the folder, as it may be printed
    path: str
    size: int  # bytes
    mtime_ns: int


class Incoming(NamedTuple):
    """What a folder holds."""

    images: list[IncomingFile]
    others: dict[str, int]  # files that are no images, by suffix


def list_incoming(folder: Path) -> Incoming:
    """Every file below a folder by name, hidden ones aside. Raises UserError where the folder is missing."""
    if not folder.is_dir():
        raise UserError(f"incoming: {folder} is not a folder. Give the path of the folder that images arrive in.")
    images, others = [], Counter[str]()
    for entry in visible_files(folder):
        if not is_image(entry):
            others[suffix_of(entry.name)] += 1
            continue
        try:
            status = entry.stat(follow_symlinks=entry.is_file())  # not of a link that leads nowhere
        except FileNotFoundError:  # taken away again
            continue
        name = shown(os.path.relpath(entry.path, folder))
        images.append(IncomingFile(name, entry.path, status.st_size, status.st_mtime_ns))
    return Incoming(sorted(images), dict(others.most_common()))


def not_seen(files: Sequence[IncomingFile], folder: Path, seen: Path, key: str) -> list[IncomingFile]:
    """Those of the folder's files that `remember` did not write under this key, or that have changed since.

    Raises UserError where none has ever been: someone waits for images in a place where none arrive. A folder that was
    emptied since is just quiet.
    """
    known = read_json(seen).get(key) if seen.exists() else None
    if not files and known is None:
        raise UserError(f"incoming: {folder} holds no image. Put images into it.")
    return [file for file in files if (known or {}).get(file.name) != [file.size, file.mtime_ns]]


def remember(files: Iterable[IncomingFile], seen: Path, key: str) -> None:
    """Write down these files, instead of what was there under this key."""
    known = read_json(seen) if seen.exists() else {}
    write_json(seen, known | {key: {file.name: [file.size, file.mtime_ns] for file in files}})
