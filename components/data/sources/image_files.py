"""Where the images of a run lie: told without decoding one, and without importing anything heavy."""

import glob
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.data.config import DataConfig, Source
from components.data.sources.file_kinds import is_image, others_told, shown, suffix_of
from components.errors import UserError

# thumbnails, and what NAS, macOS and Windows put into folders; hidden files and folders are left out besides
SYSTEM_NAMES = ("@eadir", "#recycle", "@recycle", "$recycle.bin", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini")
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}


class FolderImages(NamedTuple):
    """The images of a folder, sorted by class and place."""

    classes: tuple[str, ...]  # names of the sub-folders that hold some
    paths: list[str]
    labels: list[int]  # label i means classes[i]; −1: directly inside
    others: dict[str, int]  # files that are no images, by suffix


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


def folder_images(folder: Path, key: str, labelled: bool) -> FolderImages:
    """Images at any depth, each of the class that its first sub-folder names; those directly inside are of none.

    `key` is the folder's place in params.yaml, for messages.
    Raises a UserError where it is no folder or holds no image and, where `labelled`, for a sub-folder without one, for
    images beside sub-folders, and for sub-folders that are splits instead of classes.
    """
    entries = sorted(_entries(folder, key), key=lambda entry: entry.name)
    directories = [entry for entry in entries if entry.is_dir()]
    others: Counter[str] = Counter()
    inside = _images((entry for entry in entries if not entry.is_dir()), others)
    if labelled and directories:
        _check_layout(folder, key, inside, directories)
    by_class: dict[str, list[str]] = {}
    for directory in directories:
        here: Counter[str] = Counter()
        images = _images(visible_files(directory), here)
        others += here
        if images:  # one class may have two folders: a name that is spelt with other Unicode characters
            by_class.setdefault(class_name(directory.name), []).extend(images)
        elif labelled:
            raise UserError(f"{key}: the class folder {directory.path} holds no image{_but(here)}. Fill or remove it.")
    if not inside and not by_class:
        raise UserError(
            f"{key}: {folder} holds no image{_but(others)}. Put images into it, or one sub-folder of images a class."
        )
    paths, labels = list(inside), [-1] * len(inside)
    for label, images in enumerate(by_class.values()):
        paths += images
        labels += [label] * len(images)
    return FolderImages(tuple(by_class), paths, labels, dict(others.most_common()))


def visible_files(folder: str | os.PathLike[str], follow: bool = True) -> Iterator[os.DirEntry[str]]:
    """Files below a folder, in no order, and links that lead nowhere. Hidden and system files are left out.

    Links to folders are followed, but for those back to a folder above; or they are given like files (`follow` false).
    """
    return _walk(folder, follow, ())


def class_name(name: str) -> str:
    """The name of a class, in the form (Unicode's NFC) that all are compared in."""
    return unicodedata.normalize("NFC", shown(name))


def parquet_files(patterns: str | Iterable[str], key: str) -> list[Path]:
    """The Parquet files that a file, a folder of them or a glob pattern names, or several of these, in their order."""
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    return [file for pattern in patterns for file in _expand(pattern, key)]


def list_sources(config: DataConfig) -> dict[str, Mapping[str, Any]]:
    """What each role's source holds: how many files, and a fingerprint that changes if one comes, goes or changes.

    A file is known by its place in the source, its size and the time it was last written; none is opened, so that its
    kind is the one that its name tells. The sets that come with scikit-learn and torchvision never change, so that
    their name is all there is to tell.
    Raises a UserError where a folder or file is missing, as `prepare` does.
    """
    return {role: _listing(source, key_of(role)) for role, source in sources_by_role(config).items()}


def _listing(source: Source, key: str) -> dict[str, Any]:
    if source.folder is not None:
        root = os.path.join(source.folder, "")  # noqa: PTH118
        _entries(Path(root), f"{key}.folder")
        found = [(entry.path.removeprefix(root), _status(entry)) for entry in visible_files(root)]
    elif source.parquet is not None:
        files = parquet_files(source.parquet, f"{key}.parquet")
        names = {names for file in files if (names := file.with_name("classes.json")).is_file()}
        found = [(str(file), file.stat()) for file in (*files, *names)]
    else:
        return {"name": source.builtin or source.torchvision}
    lines = sorted(f"{name}\0{status.st_size}\0{status.st_mtime_ns}" for name, status in found)
    digest = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape"))
    kinds = sorted(Counter(suffix_of(name) for name, _ in found).items())
    return {
        "name": source.folder or source.parquet,
        "files": len(lines),
        "kinds": dict(kinds),
        "fingerprint": digest.hexdigest(),
    }


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError:  # a link that leads nowhere
        return entry.stat(follow_symlinks=False)


def _entries(folder: Path, key: str) -> list[os.DirEntry[str]]:
    if not folder.is_dir():
        section = key.removesuffix(".folder").removesuffix(".source")
        without = "" if section == "data.labelled" else f", or remove {section} from params.yaml: it is optional"
        raise UserError(f"{key}: {folder} is not a folder. Give the path of a folder of images{without}.")
    entries = list(_visible(folder))
    if not entries:
        raise UserError(f"{key}: {folder} is empty. Put images into it, or one sub-folder of images a class.")
    return entries


def _check_layout(folder: Path, key: str, inside: list[str], directories: list[os.DirEntry[str]]) -> None:
    """Raise a UserError where the folder's sub-folders can't be its classes."""
    names = [entry.name for entry in directories]
    if inside:
        raise UserError(
            f"{key}: {folder} holds images ({shown(Path(inside[0]).name)}) and folders ({shown(names[0])}). "
            "Put images directly inside (unlabelled), or in one sub-folder a class, not both."
        )
    splits = {name.lower(): name for name in names}
    if len(names) > 1 and splits.keys() <= SPLIT_NAMES and all(_has_folders(entry) for entry in directories):
        train = next((name for low, name in splits.items() if low.startswith("train")), names[0])
        raise UserError(
            f"{key}: {folder} holds splits ({', '.join(names)}) whose sub-folders are the classes. Give "
            f"{folder / train} instead, and the images to test on as data.test.folder; data.val_fraction carves the "
            "validation images out of the former."
        )


def _has_folders(directory: os.DirEntry[str]) -> bool:
    return any(entry.is_dir() for entry in _visible(directory))


def _images(entries: Iterable[os.DirEntry[str]], others: Counter[str]) -> list[str]:
    """Sorted paths of those that are images; the others are counted by suffix."""
    images = []
    for entry in entries:
        if is_image(entry):
            images.append(entry.path)
        else:
            others[suffix_of(entry.name)] += 1
    return sorted(images, key=lambda path: path.split(os.sep))  # noqa: PTH206


def _but(others: Mapping[str, int]) -> str:
    return f" ({others_told(others)})" if others else ""


def _walk(folder: str | os.PathLike[str], follow: bool, above: tuple[Path, ...]) -> Iterator[os.DirEntry[str]]:
    """`above`: the folders in which links were followed to get here."""
    for entry in _visible(folder):
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry, follow, above)
        elif entry.is_dir() and follow:
            way, target = (*above, Path(folder).resolve()), Path(entry).resolve()
            if not any(place.is_relative_to(target) for place in way):
                yield from _walk(entry, follow, way)
        elif entry.is_file() or entry.is_symlink():
            yield entry


def _visible(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (e for e in entries if not e.name.startswith(".") and e.name.lower() not in SYSTEM_NAMES)


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
