import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data.config import Source
from components.data.sources.listing import Listing
from components.data.sources.open import open_source
from components.errors import UserError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(
    path: Path, contents: Sequence[bytes | None], labels: pa.Array | None, names: list[str] | None = None
) -> None:
    columns = {"image": pa.array([{"bytes": c, "path": f"{i}.png"} for i, c in enumerate(contents)], type=IMAGE)}
    if labels is not None:
        columns["label"] = labels
    table = pa.table(columns)
    if names is not None:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(table, path, row_group_size=3)


def labelled(*patterns: str | Path) -> Listing:
    return open_source(Source(parquet=tuple(map(str, patterns))), "data.labelled", 8, labelled=True)


def test_any_rows_are_read_in_order(tmp_path: Path, noise: Callable[..., np.ndarray]) -> None:
    contents = [png(noise(i)) for i in range(20)]
    for part in range(2):
        half = contents[part * 10 : part * 10 + 10]
        write(tmp_path / f"train-{part}.parquet", half, pa.array(np.arange(10) % 2), ["cat", "dog"])
    for listing in (
        labelled(tmp_path / "train-0.parquet", tmp_path / "train-1.parquet"),
        labelled(tmp_path),
        labelled(tmp_path / "train-*.parquet"),
    ):
        assert listing.present == ("cat", "dog")
        rows = np.array([0, 3, 9, 10, 17])
        assert list(listing.read(rows)) == [contents[i] for i in rows]
        assert listing.class_names(rows) == ["cat", "dog", "dog", "cat", "dog"]
        assert listing.paths[17] == f"{tmp_path / 'train-1.parquet'}#7:7.png"
        assert list(listing.read(np.array([], dtype=int))) == []


def test_class_names_from_a_file_beside_or_from_the_labels(tmp_path: Path) -> None:
    write(tmp_path / "pets-train.parquet", [b"x"] * 3, pa.array([7, 2, 7]))
    assert labelled(tmp_path / "pets-train.parquet").present == ("2", "7")
    names = [f"race {i}" for i in range(8)]
    (tmp_path / "classes.json").write_text(json.dumps({"pet": ["wrong"], "pets": names, "cars": ["wrong"]}))
    listing = labelled(tmp_path / "pets-train.parquet")
    assert listing.present == ("race 2", "race 7")
    assert listing.class_names(np.arange(3)) == ["race 7", "race 2", "race 7"]


def test_null_labels_and_null_images_are_listed_as_missing(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [b"x", None, b"z"], pa.array([1, 0, None], type=pa.int64()))
    listing = labelled(tmp_path / "a.parquet")
    assert listing.labels is not None
    assert listing.labels.tolist() == [1, 0, -1]
    beside = tmp_path / "1.png"  # what the row says instead of holding it
    assert list(listing.read(np.arange(3))) == [b"x", beside, b"z"]


@pytest.mark.parametrize("kinds", [("binary_view", "string_view"), ("large_binary", "large_string")])
def test_bytes_and_texts_of_any_type(tmp_path: Path, kinds: tuple[str, str]) -> None:
    content, text = (getattr(pa, kind)() for kind in kinds)
    images = pa.array([{"bytes": b"x", "path": "a"}] * 3, pa.struct([("bytes", content), ("path", text)]))
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0]}), tmp_path / "a.parquet")
    assert list(labelled(tmp_path / "a.parquet").read(np.array([0, 2]))) == [b"x", b"x"]


def test_few_large_images_are_held_in_memory(tmp_path: Path) -> None:
    rows, each = 60, 4_000_000
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("image", IMAGE), ("label", pa.int64())])) as writer:
        for row in range(rows):
            images = pa.array([{"bytes": bytes([row]) * each, "path": None}], type=IMAGE)
            writer.write_table(pa.table({"image": images, "label": [row % 2]}))
    before = pa.total_allocated_bytes()
    listing = labelled(tmp_path / "a.parquet")
    held = [pa.total_allocated_bytes() - before for _ in listing.read(np.arange(rows))]
    assert max(held) < 20 * each


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"0": "on", "1": "no"}, ("on", "no")),
        ({"0000": {"1": "no", "0": "on"}}, ("on", "no")),
        (["on", "no"], ("on", "no")),
        ({"other": ["x", "y"]}, ("0", "1")),
    ],
)
def test_class_names_beside_a_file_by_id_or_in_order(tmp_path: Path, content: object, names: tuple[str, ...]) -> None:
    write(tmp_path / "0000.parquet", [b"x"] * 2, pa.array([0, 1]))
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert labelled(tmp_path / "0000.parquet").classes == names


@pytest.mark.parametrize("content", ['{"1": "on", "2": "no"}', '["on", 7]', '{"0000": "on"}', "on, no"])
def test_class_names_beside_a_file_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    write(tmp_path / "0000.parquet", [b"x"] * 2, pa.array([0, 1]))
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UserError, match=r"classes\.json"):
        labelled(tmp_path / "0000.parquet")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, -1], None, r"1 labels are out of range, the first is -1 at .*#2:2\.png; expected 0 or more"),
        ([0, 1, 2], ["cat", "dog"], "the first is 2 at .*; expected 0 to 1"),
        ([0.0, 1.0, 0.5], None, "`label` is double, expected int64"),
        ([None, None, None], None, "has no labels"),
        (None, None, "has no labels"),
    ],
)
def test_labels_that_are_missing_or_out_of_range(
    tmp_path: Path, labels: list[float | None] | None, names: list[str] | None, message: str
) -> None:
    column = None
    if labels is not None:
        column = pa.array(labels, type=pa.int64() if labels[0] is None else None)
    write(tmp_path / "a.parquet", [b"x"] * 3, column, names)
    with pytest.raises(UserError, match=message):
        labelled(tmp_path / "a.parquet")


def test_labels_out_of_range_do_not_matter_where_none_are_used(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [b"x"] * 3, pa.array([-1, 0, -1]))
    listing = open_source(Source(parquet=str(tmp_path / "a.parquet")), "data.pretrain", 8)
    assert listing.labels is not None
    assert listing.labels.tolist() == [-1, 0, -1]


def test_files_without_the_columns_name_file_and_columns(tmp_path: Path) -> None:
    for number, table in enumerate(
        [
            pa.table({"img": pa.array([{"bytes": b"x", "path": "a"}], type=IMAGE), "label": [0]}),
            pa.table({"image": [b"x"], "label": [0]}),
            pa.table({"image": [{"bytes": b"x"}], "label": [0]}),
        ]
    ):
        file = tmp_path / f"{number}.parquet"
        pq.write_table(table, file)
        with pytest.raises(UserError, match=rf"{file} has the columns .*label; expected `image: struct<bytes"):
            labelled(file)


def test_files_that_are_missing_broken_or_at_odds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="matches no Parquet file"):
        labelled(tmp_path / "none-*.parquet")
    (tmp_path / "fake.parquet").write_text("no")
    with pytest.raises(UserError, match=r"fake\.parquet can't be read as Parquet"):
        labelled(tmp_path / "fake.parquet")
    write(tmp_path / "two" / "a.parquet", [b"x"], pa.array([0]), ["cat", "dog"])
    write(tmp_path / "two" / "b.parquet", [b"x"], pa.array([0]), ["dog", "cat"])
    with pytest.raises(UserError, match="name different classes"):
        labelled(tmp_path / "two")
    write(tmp_path / "two" / "b.parquet", [b"x"], None)
    with pytest.raises(UserError, match="some of the files have a column `label`"):
        labelled(tmp_path / "two")
