"""From the sources in the configuration to one folder of arrays, a manifest and a palette."""

import csv
import dataclasses
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.data.assignment import assign, check_classes, label_of
from components.data.config import EXECUTION, DataConfig
from components.data.decoded_cache import DecodedCache
from components.data.decoders import Decoders
from components.data.image_store import ImagePool, Picture, Spool
from components.data.manifest import fingerprint, write_finer, write_split
from components.data.palette import fit_palette
from components.data.sources.image_files import key_of, sources_by_role
from components.data.sources.listing import Listing, choose_rows
from components.data.sources.open import open_source
from components.data.splits import Removed
from components.errors import UserError
from components.files import atomic_directory, atomic_file, write_json

Progress = Callable[..., Iterable[Any]]  # called as tqdm is: progress(iterable, total=…, desc=…)


class Quarantined(NamedTuple):
    """A line of quarantine.csv."""

    source: str
    path: str
    reason: str


class LeftOut(NamedTuple):
    """How many lines quarantine.csv has, by what is wrong."""

    unusable: int
    duplicates: int
    label_conflicts: int


def prepare(
    config: DataConfig,
    seed: int,
    out: Path,
    minimum_train: int,
    progress: Progress | None = None,
    cache: DecodedCache | None = None,
) -> LeftOut:
    """Write the prepared data set to the folder `out`, whole or not at all, and return how many images were left out.

    Files: `<split>.npy` uint8 (N, H, W, C), `palette.npy` uint8 (K, C), `manifest.parquet` (one row an image),
    `quarantine.csv` (what was left out and why), `dataset.json`, `training.json` (what pretraining depends on), and
    with `stored_size` also `finer.npy`, the images of the pretraining split in that size.
    `minimum_train` is the batch size of pretraining. Decoded images are taken from the cache and kept there.
    Raises a UserError for bad sources, too many unusable files (their list is then left beside `out`), classes absent
    from a split, too few training images and OOD sets that overlap with what the model knows.
    """
    sources = sources_by_role(config)
    listings = {
        role: open_source(source, key_of(role), config.image_size, labelled=role in ("labelled", "test"))
        for role, source in sources.items()
    }
    classes = check_classes(config, listings)
    with (
        atomic_directory(out) as folder,
        tempfile.TemporaryFile(dir=folder) as spool,
        tempfile.TemporaryFile(dir=folder) as finer_spool,
        closing(Decoders(config.reading, config.processes, cache)) as decoders,
    ):
        finer = Spool(finer_spool, config.finer, config.channels) if config.finer else None
        pool = ImagePool(Spool(spool, config.image_size, config.channels), finer)
        rows, rejected = {}, {}
        for role, source in sources.items():
            rng = np.random.default_rng([seed, zlib.crc32(role.encode())])
            chosen = choose_rows(listings[role], source, key_of(role), rng)
            trains = role == ("labelled" if config.pretrain is None else "pretrain")
            answers = decoders.decode(listings[role].read(chosen), len(chosen), config.finer if trains else None)
            rows[role], rejected[role] = _collect(
                answers, listings[role], chosen, role in ("labelled", "test"), pool, progress
            )
        every_rejected = [line for lines in rejected.values() for line in lines]
        _stop_if_too_many(rows, rejected, config, out.with_name("quarantine.csv"))
        splits, removed = assign(config, classes, rows, pool, seed)
        pretrain = "pretrain" if "pretrain" in splits else "train"
        if len(splits[pretrain]) < minimum_train:
            raise UserError(
                f"data.{'pretrain' if config.pretrain else 'labelled'}: {len(splits[pretrain])} training images are "
                f"fewer than one batch (training.batch_size: {minimum_train}). Add images or lower training.batch_size."
            )
        described = _write_images(folder, splits, classes, pool)
        palette = fit_palette(np.load(folder / f"{pretrain}.npy", mmap_mode="r"), config.palette_colours, seed)
        np.save(folder / "palette.npy", palette)
        _write_quarantine(folder / "quarantine.csv", every_rejected, removed, pool)
        stored = {}
        if config.finer:
            digest = write_finer(folder / "finer.npy", splits[pretrain], pool)
            stored = {"finer": {"size": config.finer, "sha256": digest}}
        meta = {
            "classes": list(classes),
            "image_size": config.image_size,
            "channels": config.channels,
            "splits": described,
            "fingerprint": fingerprint([f"{name} {split['fingerprint']}" for name, split in described.items()]),
            "ood": {name: ood.distance for name, ood in config.ood.items()},
            "palette_colours": len(palette),
            "reading": config.reading,
            **stored,
            "sources": {
                role: {
                    "name": listings[role].name,
                    "files": len(rows[role]) + len(rejected[role]),
                    "quarantined": len(rejected[role]),
                    "quarantined_share": _share(rows[role], rejected[role]),
                    "converted": dict(Counter(pool.converted[row] for row in rows[role] if pool.converted[row])),
                    "others": dict(listings[role].others),
                    "small_classes": listings[role].small_classes(source.min_class_images),
                }
                for role, source in sources.items()
            },
            "quarantined": len(every_rejected),
            "quarantined_share": len(every_rejected) / (len(pool.path) + len(every_rejected)),
            "duplicates_removed": len(removed),
            "seed": seed,
            "constants": {name: value for name, value in dataclasses.asdict(config).items() if name not in EXECUTION},
        }
        write_json(folder / "dataset.json", meta)
        # what pretraining reads, by content: another OOD or test set changes dataset.json, but not this
        read = {name: described[name] for name in sorted({pretrain, "train", "val"})}
        write_json(folder / "training.json", {"classes": list(classes), "splits": read, **stored})
    out.with_name("quarantine.csv").unlink(missing_ok=True)  # of an earlier, failed run
    kinds = Counter(removal.kind for removal in removed.values())
    return LeftOut(len(every_rejected), kinds["duplicate"], kinds["label conflict"])


def _collect(
    answers: Iterable[Picture | str],
    listing: Listing,
    chosen: np.ndarray,
    labelled: bool,
    pool: ImagePool,
    progress: Progress | None,
) -> tuple[np.ndarray, list[Quarantined]]:
    """Put the chosen images, as decoded, into the pool: their rows there, and the ones that can't be used."""
    rows, rejected = [], []
    work: Iterable[tuple[int, Any, str]] = zip(chosen, answers, listing.class_names(chosen), strict=True)
    if progress is not None:
        work = progress(work, total=len(chosen), desc=f"reading {listing.name}")
    for index, answer, class_name in work:
        path = listing.paths[index]
        if labelled and not class_name:
            answer = "no label"
        if isinstance(answer, str):
            rejected.append(Quarantined(listing.name, path, answer))
        else:
            converted = "; ".join(answer.converted)
            rows.append(pool.add(answer.pixels, listing.name, path, class_name, converted, answer.finer))
    return np.array(rows, dtype=np.int64), rejected


def _write_images(
    folder: Path, splits: Mapping[str, np.ndarray], classes: Sequence[str], pool: ImagePool
) -> dict[str, dict[str, Any]]:
    """Write each split's images and the manifest of all; returns each split's size and fingerprint."""
    tables = {}
    for name, members in splits.items():
        known = () if name.startswith("ood-") else classes  # an OOD image is of no class, whatever it is called
        labels = label_of(np.array(pool.class_name)[members], known)
        tables[name] = write_split(folder / f"{name}.npy", name, members, labels, pool)
    with pq.ParquetWriter(folder / "manifest.parquet", tables["train"].schema) as writer:
        for table in tables.values():
            writer.write_table(table)
    return {name: {"count": len(table), "fingerprint": _fingerprint_of(table)} for name, table in tables.items()}


def _fingerprint_of(table: pa.Table) -> str:
    pairs = zip(table["sha256"].to_pylist(), table["label"].to_pylist(), strict=True)
    return fingerprint([f"{digest} {label}" for digest, label in pairs])


def _share(rows: np.ndarray, rejected: list[Quarantined]) -> float:
    return len(rejected) / max(1, len(rows) + len(rejected))


def _stop_if_too_many(
    rows: Mapping[str, np.ndarray], rejected: Mapping[str, list[Quarantined]], config: DataConfig, listed: Path
) -> None:
    """Each source by itself must keep to `max_quarantined`, otherwise a broken small one hides behind a large one."""
    for role, lines in rejected.items():
        share = _share(rows[role], lines)
        if share <= config.max_quarantined and len(rows[role]):
            continue
        _write_quarantine(listed, [line for every in rejected.values() for line in every])
        reasons = Counter(line.reason for line in lines).most_common(3)
        raise UserError(
            f"{key_of(role)}: {len(lines)} of {len(rows[role]) + len(lines)} images ({share:.1%}) can't be used; "
            f"data.max_quarantined allows {config.max_quarantined:.1%}. "
            f"Reasons: {'; '.join(f'{reason} ({count}×)' for reason, count in reasons)}. "
            f"For example {', '.join(line.path for line in lines[:3])}; all are listed in {listed}. "
            "Repair or remove them, or raise data.max_quarantined."
        )


def _write_quarantine(
    path: Path, rejected: list[Quarantined], removed: Removed | None = None, pool: ImagePool | None = None
) -> None:
    lines = list(rejected)
    if removed and pool:
        lines += [Quarantined(pool.source[row], pool.path[row], removal.reason) for row, removal in removed.items()]
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Quarantined._fields)
        writer.writerows(lines)
