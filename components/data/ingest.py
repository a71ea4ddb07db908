"""New images come into the collection that a run is made from: each one checked, all of them or none.

Unusable files, and those that the collection holds already, go to `<incoming>-rejected/`, listed in its `reasons.csv`.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.data.config import DataConfig
from components.data.decoders import Decoders
from components.data.sources.file_kinds import is_image, others_told, suffix_of
from components.data.sources.image_files import SYSTEM_NAMES, class_name, visible_files
from components.errors import UserError, nearest
from components.file_transaction import move_all, moved, os_errors_explained, plan, undo
from components.files import atomic_file, file_digest, remove_abandoned
from components.locks import HeldError, locked

JOURNAL, LOCK = ".intake.json", ".intake.lock"  # in the collection; a hidden file is no image
REASONS = "reasons.csv"
EXAMPLES = 3  # files named in a message


class Rejected(NamedTuple):
    """A line of reasons.csv."""

    file: str  # in the folder of rejected files
    reason: str


@dataclass(frozen=True)
class Batch:
    """What came into a collection."""

    key: str  # the collection's place in params.yaml
    collection: Path
    taken: Mapping[str, int]  # images a class; of the class "" where they have none
    new_classes: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    rejected_to: Path
    others: Mapping[str, int] = field(default_factory=dict)  # files that are no images, by suffix: they stay


@contextmanager
def taken_in(incoming: Path, config: DataConfig, project: Path = Path(), new_classes: bool = False) -> Iterator[Batch]:
    """Move the images of `incoming` into their collection: for good if the block ends well, back if it raises.

    With one sub-folder a class they go to data.labelled.folder, directly inside to data.pretrain.folder; `project` is
    what these are relative to. An image must be one that `prepare` can use. Copies of a file that the collection holds
    are not taken in twice; the same picture in another file is, and `prepare` removes it. A name that is taken gets a
    number. After a kill the next call moves the images back first.

    Raises:
        UserError: nothing has arrived, the collection isn't configured or in use, a class is unknown to it (unless
            `new_classes`), or the share of unusable files is above data.max_quarantined. Nothing is moved then.
    """
    incoming = incoming.resolve()
    undo_unfinished(config, project)
    arrived, others = _arrived(incoming)
    key, collection = _collection(incoming, set(arrived.values()) != {""}, config, project)
    with _locked(collection):
        unknown = _unknown_classes(incoming, set(arrived.values()) - {""}, key, collection, new_classes)
        rejected = _rejected(incoming, arrived, collection, config)
        moves = plan((file for file in arrived if file not in rejected), incoming, collection)
        taken = dict(Counter(arrived[move.source] for move in moves))
        aside = incoming.with_name(f"{incoming.name}-rejected")
        batch = Batch(key, collection, taken, unknown, _put_aside(rejected, incoming, aside), aside, others)
        with moved(moves, collection / JOURNAL):
            yield batch


def undo_unfinished(config: DataConfig, project: Path = Path()) -> int:
    """Move back what a killed intake left in the collections; returns how many images. UserError: one is at work."""
    back = 0
    for source in (config.labelled, config.pretrain):
        if source is not None and source.folder is not None and (project / source.folder).is_dir():
            collection = (project / source.folder).resolve()
            if (collection / JOURNAL).exists():
                with _locked(collection):
                    back += undo(collection / JOURNAL)
    return back


def _arrived(incoming: Path) -> tuple[dict[Path, str], dict[str, int]]:
    """The images in the order of their names, each with its class: the first folder that it lies in, or none: "".

    Links to folders are among them. Other files are counted by suffix.
    """
    if not incoming.is_dir():
        raise UserError(f"incoming: {incoming} is not a folder. Give the path of the folder where new images arrive.")
    arrived, others = {}, Counter[str]()
    for file in sorted(Path(entry.path) for entry in visible_files(incoming, follow=False)):
        inside = file.relative_to(incoming).parts
        if is_image(file) or (file.is_symlink() and file.is_dir()):
            arrived[file] = inside[0] if len(inside) > 1 else ""
        else:
            others[suffix_of(file.name)] += 1
    if not arrived:
        holds = f"holds no image ({others_told(others)})" if others else "is empty"
        raise UserError(
            f"incoming: {incoming} {holds}. Put new images into it, or one sub-folder of them a class, and run again."
        )
    if len(kinds := {bool(name): file for file, name in arrived.items()}) > 1:
        raise UserError(
            f"incoming: {incoming} holds files ({kinds[False].name}) and folders ({arrived[kinds[True]]}). "
            "Put images directly inside (unlabelled), or in one sub-folder a class, not both."
        )
    return arrived, dict(others.most_common())


def _collection(incoming: Path, labelled: bool, config: DataConfig, project: Path) -> tuple[str, Path]:
    """Key and place of the folder that these images belong to."""
    source, key = (config.labelled, "data.labelled") if labelled else (config.pretrain, "data.pretrain")
    if source is None or source.folder is None:
        raise UserError(
            f"incoming: {incoming} holds images {'of named classes' if labelled else 'without a class'}, but "
            f"{key}.folder is not set in params.yaml. Images in one sub-folder a class are taken into "
            "data.labelled.folder, images directly inside `incoming` into data.pretrain.folder: set the one you mean."
        )
    key, folder = f"{key}.folder", (project / source.folder).resolve()
    if not folder.is_dir():
        raise UserError(f"{key}: {folder} is not a folder. Make it, or give the path of the folder to collect in.")
    if folder.is_relative_to(incoming) or incoming.is_relative_to(folder):
        raise UserError(f"incoming: {incoming} and {key} ({folder}) lie in each other. Choose a folder apart.")
    for entry in sorted(folder.iterdir()) if labelled else ():
        if entry.is_file() and not entry.name.startswith(".") and is_image(entry):
            raise UserError(
                f"{key}: {folder} holds an image ({entry.name}), so that images in folders can't be put beside it."
            )
    return key, folder


def _unknown_classes(
    incoming: Path, classes: set[str], key: str, collection: Path, new_classes: bool
) -> tuple[str, ...]:
    """Classes that the collection lacks."""
    names = (entry.name for entry in collection.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    known = sorted(class_name(name) for name in names if name.lower() not in SYSTEM_NAMES)
    unknown = tuple(sorted(name for name in classes if class_name(name) not in known))
    if unknown and not new_classes:
        raise UserError(
            f"incoming: {incoming} has a class {unknown[0]!r} that {key} lacks"
            f"{nearest(unknown[0], known)}. A new class changes what the model puts out: "
            f"say new_classes=true if it is meant. Known: {', '.join(known)}."
        )
    return unknown


def _rejected(incoming: Path, arrived: Mapping[Path, str], collection: Path, config: DataConfig) -> dict[Path, str]:
    """Files that are not taken in, each with the reason: copies, and unusable ones unless they are too many."""
    unusable = _unusable(arrived, config)
    copies = {}
    for file, original in _copies([file for file in arrived if file not in unusable], collection).items():
        here = original.is_relative_to(incoming)
        name = original.relative_to(incoming if here else collection)
        reason = f"the same file {'has arrived' if here else 'is in the collection'} as {name}"
        if arrived[file] and name.parts[0] != arrived[file]:
            unusable[file] = f"{reason}, of another class"
        else:
            copies[file] = reason
    share = len(unusable) / len(arrived)
    if share > config.max_quarantined:
        examples = [f"{file.relative_to(incoming)} ({reason})" for file, reason in unusable.items()]
        raise UserError(
            f"incoming: {len(unusable)} of the {len(arrived)} images in {incoming} ({share:.1%}) can't be used; "
            f"data.max_quarantined allows {config.max_quarantined:.1%}. For example {'; '.join(examples[:EXAMPLES])}. "
            "Nothing was moved. Repair or remove them, or raise data.max_quarantined."
        )
    return unusable | copies


def _unusable(arrived: Iterable[Path], config: DataConfig) -> dict[Path, str]:
    links = {file: "a link, expected the image itself" for file in arrived if file.is_symlink()}
    files = [file for file in arrived if file not in links]
    with closing(Decoders(config.reading, config.processes)) as decoders:
        answers = zip(files, decoders.decode(files, len(files)), strict=True)
        return links | {file: answer for file, answer in answers if isinstance(answer, str)}


def _copies(files: Sequence[Path], collection: Path) -> dict[Path, Path]:
    """Files of the same bytes as one in the collection or one before: which. Reads only what has the same size."""
    sizes = {file.stat().st_size for file in files}
    originals: dict[str, Path] = {}
    for entry in visible_files(collection):
        if entry.stat().st_size in sizes:
            originals[file_digest(Path(entry.path))] = Path(entry.path)
    found = {}
    for file in files:
        original = originals.setdefault(file_digest(file), file)
        if original != file:
            found[file] = original
    return found


def _put_aside(rejected: Mapping[Path, str], incoming: Path, aside: Path) -> tuple[Rejected, ...]:
    """Move rejected files away for good. The reasons are written before, so that no file lies there without one."""
    reasons = aside / REASONS
    moves = plan(rejected, incoming, aside, taken=[reasons])
    lines = [Rejected(str(move.target.relative_to(aside)), rejected[move.source]) for move in moves]
    if lines:
        with os_errors_explained():
            remove_abandoned([reasons])
            _write_reasons(reasons, lines)
        move_all(moves)
    return tuple(lines)


def _write_reasons(path: Path, lines: Sequence[Rejected]) -> None:
    before = {}
    if path.exists():
        with path.open(newline="") as file:
            before = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Rejected._fields)
        writer.writerows((before | dict(lines)).items())


@contextmanager
def _locked(collection: Path) -> Iterator[None]:
    """Hold the collection for this process. The lock file stays: network file systems can't lock a folder itself."""
    with ExitStack() as stack:
        try:
            with os_errors_explained():
                stack.enter_context(locked(collection / LOCK, seconds=0))
        except HeldError as error:
            raise UserError(
                f"{collection}: {error.holder} is just taking images in there. Run again when it has ended."
            ) from error
        yield
