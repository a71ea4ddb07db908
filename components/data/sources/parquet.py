"""Parquet files in the layout of Hugging Face's image data sets: `image: struct<bytes, path>`, `label: int64`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.data.sources.listing import Listing, unique_names
from components.errors import UserError

BYTES_AT_A_TIME = 32_000_000  # of images that are read together


def list_parquet(files: Sequence[Path], key: str, labelled: bool) -> Listing:
    """List the images of Parquet files, in the order given.

    Class names come from the schema's Hugging Face metadata, else from a `classes.json` beside the file, else they are
    the labels themselves. See `sources.open_source` for `key` and `labelled`.
    """
    tables = [_read_columns(file, key) for file in files]
    with_labels = [table for table in tables if "label" in table.column_names]
    if with_labels and len(with_labels) < len(tables):
        raise UserError(f"{key}: some of the files have a column `label` and some do not. List them as two sources.")
    paths = [
        f"{file}#{row}" + (f":{inner}" if inner else "")
        for file, table in zip(files, tables, strict=True)
        for row, inner in enumerate(table["path"].to_pylist())
    ]
    names = _class_names(files, key) if with_labels else None
    labels = _labels(pa.concat_tables(tables)["label"], names, paths, key, labelled) if with_labels else None
    if labels is not None and names is None:
        values, index = np.unique(labels[labels >= 0], return_inverse=True)
        names = tuple(str(value) for value in values)
        labels[labels >= 0] = index
    return Listing(
        name=files[0].stem if len(files) == 1 else f"{files[0].stem} and {len(files) - 1} more",
        paths=paths,
        labels=labels,
        classes=names or (),
        read=lambda rows: _read_images(files, rows),
    )


def _read_columns(file: Path, key: str) -> pa.Table:
    """Columns `path` and, where there is one, `label`; the images stay on disk."""
    try:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        image = schema.field("image").type if "image" in schema.names else None
        if image is None or not pa.types.is_struct(image) or not {"bytes", "path"} <= {field.name for field in image}:
            raise UserError(
                f"{key}: {file} has the columns {', '.join(schema.names)}; expected "
                "`image: struct<bytes: binary, path: string>` and, for labelled sets, `label: int64`."
            )
        has_label = "label" in schema.names
        if has_label and not pa.types.is_integer(schema.field("label").type):
            raise UserError(f"{key}: {file}: the column `label` is {schema.field('label').type}, expected int64.")
        table = parquet.read(columns=["image.path", *(["label"] if has_label else [])])
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{key}: {file} can't be read as Parquet ({error}).") from error
    columns = {"path": pc.struct_field(table["image"], "path")}
    if has_label:
        columns["label"] = table["label"].cast(pa.int64())
    return pa.table(columns)


def _labels(
    column: pa.ChunkedArray, names: tuple[str, ...] | None, paths: list[str], key: str, labelled: bool
) -> np.ndarray:
    """Labels as int64 (N,), −1 where null; one that is negative or has no name is an error where they will be used."""
    missing = column.is_null().to_numpy()
    labels = column.fill_null(0).to_numpy().copy()
    wrong = ~missing & ((labels < 0) | (labels >= len(names) if names else False))
    if labelled and wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        expected = f"0 to {len(names) - 1}" if names else "0 or more"
        raise UserError(
            f"{key}: {wrong.sum()} labels are out of range, the first is {labels[row]} at {paths[row]}; "
            f"expected {expected}."
        )
    labels[missing | wrong] = -1
    return labels


def _class_names(files: Sequence[Path], key: str) -> tuple[str, ...] | None:
    found = {_names_in_schema(file) or _names_beside(file) for file in files}
    if len(found) > 1:
        raise UserError(f"{key}: the files name different classes. List them as separate sources.")
    return found.pop()


def _names_in_schema(file: Path) -> tuple[str, ...] | None:
    metadata = pq.read_schema(file).metadata or {}
    info: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    names = info.get("info", {}).get("features", {}).get("label", {}).get("names")
    return unique_names(names) if names else None


def _names_beside(file: Path) -> tuple[str, ...] | None:
    """`classes.json` is a list of names, maps ids to names, or the beginning of file names (`cifar10`) to either."""
    beside = file.with_name("classes.json")
    if not beside.is_file():
        return None
    try:
        content = json.loads(beside.read_text())
    except ValueError as error:
        raise UserError(f"{beside} can't be read as JSON ({error}).") from error
    if isinstance(content, dict) and not all(isinstance(name, str) for name in content.values()):
        fitting = [prefix for prefix in content if file.name.startswith(prefix)]
        if not fitting:
            return None
        content = content[max(fitting, key=len)]
    if isinstance(content, dict) and {*content} == {str(i) for i in range(len(content))}:
        content = [content[str(i)] for i in range(len(content))]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise UserError(
            f"{beside}: expected a list of class names, a mapping of the ids 0, 1, … to names, or one of the beginning "
            "of file names to such a list."
        )
    return unique_names(content) if content else None


def _read_images(files: Sequence[Path], rows: np.ndarray) -> Iterator[bytes | Path]:
    """File contents of ascending rows (counted through all files); the path, where the file holds that alone."""
    wanted = np.zeros(int(rows[-1]) + 1 if len(rows) else 0, dtype=bool)
    wanted[rows] = True
    start = 0
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            each = sum(parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups))
            at_a_time = int(BYTES_AT_A_TIME * parquet.metadata.num_rows / max(1, each)) + 1
            for batch in parquet.iter_batches(min(at_a_time, 1024), columns=["image"]):
                if start >= len(wanted):
                    return
                image = batch["image"]
                for row in np.flatnonzero(wanted[start : start + len(batch)]):
                    yield _file_of(image[int(row)].as_py() or {}, file)
                start += len(batch)


def _file_of(image: Mapping[str, Any], parquet: Path) -> bytes | Path:
    if image.get("bytes") is None and image.get("path"):
        return parquet.parent / image["path"]
    return image.get("bytes") or b""
