"""Many files moved as one: for good, or back to where they were; a kill at any moment loses none.

A journal names every move before the first is made. Whoever finds one whose process is gone moves the files back.
"""

import errno
import filecmp
import itertools
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from components.errors import UserError
from components.files import atomic_file, remove_abandoned, write_json


class Move(NamedTuple):
    source: Path
    target: Path


@contextmanager
def moved(moves: Sequence[Move], journal: Path) -> Iterator[None]:
    """Move the files for as long as the block runs: for good if it ends well, back if it raises.

    Targets must be free; their folders are made, and removed again if they are left empty. Raises a UserError where a
    file can't be moved; those before it are then back already.
    """
    with os_errors_explained():
        remove_abandoned([journal])
        write_json(journal, [[str(move.source), str(move.target)] for move in moves])
    try:
        move_all(moves)
        yield
    except BaseException:
        undo(journal)
        raise
    journal.unlink()


def undo(journal: Path) -> int:
    """Move back what a journal says was moved, if there is one; may be repeated. Returns how many files went back."""
    if not journal.exists():
        return 0
    moves = [Move(Path(source), Path(target)) for source, target in json.loads(journal.read_text())]
    with os_errors_explained():
        remove_abandoned(place for move in moves for place in move)
        back = sum(_move_back(move) for move in reversed(moves))
        folders = {folder for _, target in moves for folder in target.parents if journal.parent in folder.parents}
        for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):  # it holds other files
                folder.rmdir()
        journal.unlink()
    return back


def move_all(moves: Sequence[Move]) -> None:
    """Move files, with their times. At every moment each is whole at one of its two places, or at both."""
    with os_errors_explained():
        remove_abandoned(target for _, target in moves)
        for source, target in moves:
            _move(source, target)


def plan(files: Iterable[Path], source: Path, target: Path, taken: Collection[Path] = ()) -> list[Move]:
    """Moves from one folder to the same places in another. A name that is taken gets a number: NAME-1, NAME-2 …"""
    moves, occupied = [], set(taken)
    for file in files:
        place = _free(target / file.relative_to(source), occupied)
        occupied.add(place)
        moves.append(Move(file, place))
    return moves


@contextmanager
def os_errors_explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename2 or error.filename}: {error.strerror}, so that files can't be moved. "
            "Put that right and run again; no file is lost."
        ) from error


def _free(place: Path, occupied: Collection[Path]) -> Path:
    places = itertools.chain([place], (place.with_stem(f"{place.stem}-{n}") for n in itertools.count(1)))
    return next(place for place in places if place not in occupied and not os.path.lexists(place))


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_file(target) as temporary:
            shutil.copy2(source, temporary)
        _sync(target.parent)
        source.unlink()


def _move_back(move: Move) -> bool:
    source, target = move
    if not target.exists():
        return False
    if source.exists() and filecmp.cmp(source, target, shallow=False):
        target.unlink()  # copied to another file system, but not yet removed from the first
        return False
    _move(target, _free(source, ()))
    return True


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
