"""Results that travel: one tar archive, cut into parts of a size that can be carried, and put together again."""

import itertools
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from components.errors import UserError
from components.files import atomic_directory, atomic_file, read_json
from pipelines.experiments.members import BASELINES, RUNS, SETTINGS, Member, members_of
from pipelines.experiments.plan import PLAN
from pipelines.experiments.tables import NUMBERS, TABLE
from pipelines.paths import PREPARED
from pipelines.tracking.checks import check_key, shortened

MIB = 2**20
LEFT_OUT = "left_out.json"
LARGE = (".safetensors", ".parquet")  # weights, scores and the images that detectors get wrong: as far as there is room
NEVER = ".npy"  # features: many times the size of all else, and made again from the weights in no time
UNTOUCHED = "Nothing was unpacked."
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
# Every name in an archive. An exported model is never among them, nor what a report wrote.
LAYOUT = re.compile(
    "|".join(
        (
            *map(re.escape, (LEFT_OUT, PLAN, TABLE, NUMBERS)),
            rf"{BASELINES}/seed-[0-9]+/outputs/baselines/{_PART}\.json",
            rf"{RUNS}/{_PART}/seed-[0-9]+/(?:{re.escape(SETTINGS)}|{PREPARED}/dataset\.json)",
            rf"{RUNS}/{_PART}/seed-[0-9]+/outputs/(?!reports/){_PART}/(?!export/){_PART}(?:/{_PART})+",
            rf"{RUNS}/{_PART}/seed-[0-9]+/\.tracking/journals(?:/{_PART}){{2,}}",
        )
    )
)


def pack(study: Path, out: Path, part_mib: float, parts: int, models: Sequence[str] = ()) -> list[Path]:
    """Write the archive's parts `study.tar.000`, `study.tar.001` … to the folder `out`, and return them.

    In it are every finished stage's numbers, curves and journals, and as many of the scores and weights as
    there is room for, the smallest first; those of `models` before all others. What found no room is listed in
    left_out.json, there and in the archive. An exported model stays: the import makes it again from the weights.

    Raises:
        UserError: there is nothing to pack, or no room for the least.
    """
    needed, wanted = _files(study)
    if not needed:
        raise UserError(f"{study}: no finished stage to pack.")
    listing = json.dumps(dict.fromkeys(wanted, 1e9), indent=2)  # of files left out: no longer than this
    room = int(part_mib * MIB) * parts - len(listing) - 2 * tarfile.RECORDSIZE  # the archive's own end
    chosen = list(needed)
    used = sum(_size_in_archive(*item) for item in needed.items())
    left: dict[str, float] = {}
    of_models = [f"{RUNS}/{model}/" for model in models]
    for name in sorted(wanted, key=lambda n: (not n.startswith(tuple(of_models)), wanted[n].stat().st_size, n)):
        size = _size_in_archive(name, wanted[name])
        if used + size > room:
            left[name] = round(wanted[name].stat().st_size / MIB, 2)
        else:
            chosen.append(name)
            used += size
    if used > room:
        raise UserError(f"pack: the results take {used / MIB:.1f} MiB, more than {parts} parts of {part_mib:g} MiB.")
    files = needed | wanted
    with atomic_directory(out) as folder, tempfile.TemporaryFile() as whole:
        (folder / LEFT_OUT).write_text(json.dumps(left, indent=2) + "\n")
        with tarfile.open(fileobj=whole, mode="w", format=tarfile.GNU_FORMAT) as archive:
            archive.add(folder / LEFT_OUT, arcname=LEFT_OUT)
            for name in chosen:
                archive.add(files[name].resolve(), arcname=name)
        whole.seek(0)
        for number in itertools.count():
            if not (content := whole.read(int(part_mib * MIB))):
                break
            (folder / f"study.tar.{number:03d}").write_bytes(content)
    return sorted(out.glob("study.tar.*"))


def unpack(folder: Path) -> None:
    """Put the parts in a folder together and their files beside them; files that are there already stay.

    Raises:
        UserError: a part is missing or damaged, or the archive holds anything but a study's files. Nothing is written
            then.
    """
    parts = sorted(path for path in folder.glob("study.tar.*") if path.is_file())
    if not parts:
        return
    expected = [f"study.tar.{i:03d}" for i in range(len(parts))]
    if [part.name for part in parts] != expected:
        raise UserError(f"{folder}: parts of the archive are missing: expected {', '.join(expected)}.")
    try:
        with tempfile.TemporaryFile() as whole:
            for part in parts:
                whole.write(part.read_bytes())
            size = whole.tell()
            whole.seek(0)
            with tarfile.open(fileobj=whole, mode="r:") as archive:
                for entry in _checked(archive, size, folder):
                    if (folder / entry.name).exists():
                        continue
                    content = archive.extractfile(entry)
                    assert content is not None  # it is a regular file
                    with atomic_file(folder / entry.name) as temporary, temporary.open("wb") as file:
                        shutil.copyfileobj(content, file)
    # tarfile itself stumbles over some damaged headers, with a ValueError or an OverflowError
    except (tarfile.TarError, EOFError, ValueError, OverflowError, FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"{folder}: the archive is damaged or a part is missing ({shortened(error)}). Fetch it again."
        ) from error


def _checked(archive: tarfile.TarFile, size: int, folder: Path) -> list[tarfile.TarInfo]:
    """The entries of an archive of so many bytes; all of them are files, each of a name that `pack` gives."""
    entries: dict[str, tarfile.TarInfo] = {}
    root = folder.resolve()
    for entry in archive:
        name = entry.name
        wrong = None
        if not LAYOUT.fullmatch(name) or name.endswith(NEVER):
            wrong = "no file of a study"
        elif entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
            wrong = "a link, a device or another special file"
        elif name in entries:
            wrong = "there twice"
        elif not 0 <= entry.size <= size - entry.offset_data:
            raise tarfile.ReadError("unexpected end of data")
        elif root not in (folder / name).resolve().parents:
            wrong = "there a link leads elsewhere"
        if wrong:
            raise UserError(f"{folder}: the archive holds {name[:200]!r}: {wrong}. {UNTOUCHED}")
        entries[name] = entry
    for name in entries:
        if above := {str(parent) for parent in PurePosixPath(name).parents} & set(entries):
            raise UserError(
                f"{folder}: the archive holds {name[:200]!r} below the file {above.pop()[:200]!r}. {UNTOUCHED}"
            )
    return list(entries.values())


def _size_in_archive(name: str, path: Path) -> int:
    """With its header, which takes two blocks more for a long name."""
    header = 1 if len(name) <= tarfile.LENGTH_NAME else 3
    return (header - (-path.stat().st_size // tarfile.BLOCKSIZE)) * tarfile.BLOCKSIZE


def _files(study: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Name in the archive → file: what must be in it, and what may."""
    needed: dict[str, Path] = {}
    wanted: dict[str, Path] = {}
    for path in (study / name for name in (PLAN, TABLE, NUMBERS)):
        if path.exists():
            needed[path.name] = path
    for path in sorted((study / BASELINES).glob("*/outputs/baselines/*.json")):
        needed[str(path.relative_to(study))] = path
    members = members_of(study)
    for path in (path for member in members for path in _of_member(member)):
        name = str(path.relative_to(study))
        if path.suffix != NEVER and LAYOUT.fullmatch(name):
            (wanted if path.suffix in LARGE else needed)[name] = path
    return (needed if any(name.startswith(RUNS) for name in needed) else {}), wanted


def _of_member(member: Member) -> Iterator[Path]:
    """Its settings, the description of its data, and the files and journals of the stages that have run."""
    found = sorted(member.folder.glob("outputs/*/*/record.json"))
    records = [path for path in found if path.parent.name != "export" and path.parent.parent.name != "reports"]
    if records:
        yield member.folder / SETTINGS
        yield member.folder / PREPARED / "dataset.json"
    for record in records:
        journal = member.folder / ".tracking" / "journals" / _run_key(record)
        for folder in (record.parent, journal):
            yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "upload.lock")


def _run_key(record: Path) -> str:
    """Raises UserError where a record, which may have come from elsewhere, names no run: its key names a folder."""
    content = read_json(record)
    try:
        key = str(content["run_key"])
        check_key(key)
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(f"{record}: {shortened(error)}.") from error
    return key
