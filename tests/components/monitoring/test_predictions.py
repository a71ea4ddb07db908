import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data.decode import decode
from components.errors import UserError
from components.export.session import run_session
from components.monitoring.incoming import list_incoming
from components.monitoring.predictions import write_predictions
from components.monitoring.scoring import Scorer


@pytest.fixture
def scorer(model, reference, tmp_path) -> Scorer:
    reference.save(tmp_path / "reference.npz")
    return Scorer(model, tmp_path / "reference.npz")


@pytest.fixture
def images(tmp_path, draw):
    """Five images, one of them in a sub-folder, and a file in between that is none."""
    folder = tmp_path / "images"
    (folder / "c").mkdir(parents=True)
    for name, image in zip(("a", "b", "c/x", "e", "f"), draw(5), strict=True):
        Image.fromarray(image[..., 0]).save(folder / f"{name}.png")
    (folder / "d.png").write_text("no image")
    return folder


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_rows_are_the_models_answers_file_by_file(scorer, images, tmp_path, batch_size):
    done: list[int] = []
    unusable = write_predictions(scorer, list_incoming(images).images, tmp_path / "t.parquet", batch_size, done.append)
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["path"] for row in rows] == ["a.png", "b.png", "c/x.png", "d.png", "e.png", "f.png"]
    assert [bad.path for bad in unusable] == ["d.png"]
    assert rows[3]["problem"] == unusable[0].reason
    assert rows[3]["predicted_class"] is rows[3]["is_ood"] is rows[3]["probability: dark"] is None
    assert done[-1] == 6
    for row in rows[:3] + rows[4:]:
        image = decode((images / row["path"]).read_bytes(), 4, 1, False)
        answer = run_session(scorer.session, image[None])
        expected = dict(zip(("dark", "bright"), answer["probabilities"][0], strict=True))
        assert {name: row[f"probability: {name}"] for name in expected} == pytest.approx(expected)
        assert row["predicted_class"] == max(expected, key=expected.__getitem__)
        assert row["ood_score"] == pytest.approx(answer["ood_score"][0])
        assert row["is_ood"] == answer["is_ood"][0]
        assert row["problem"] is None


def test_both_formats_hold_the_same(scorer, images, tmp_path):
    for suffix in ("csv", "parquet"):
        write_predictions(scorer, list_incoming(images).images, tmp_path / f"t.{suffix}")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "t.parquet")
    assert list(rows[0]) == table.column_names
    scores = [float(row["ood_score"]) for row in rows if row["ood_score"]]
    assert scores == pytest.approx(table["ood_score"].drop_null().to_pylist())
    assert np.mean(scores) > 0


@pytest.mark.parametrize(
    ("out", "keep", "message"),
    [("t.xlsx", "*", r"must end with \.csv or \.parquet"), ("t.csv", "d.png", "none of 1 files is an image")],
)
def test_a_mistake_leaves_no_table(scorer, images, tmp_path, out, keep, message):
    before = set(tmp_path.iterdir())
    files = [file for file in list_incoming(images).images if keep in ("*", file.name)]
    with pytest.raises(UserError, match=message):
        write_predictions(scorer, files, tmp_path / out)
    assert set(tmp_path.iterdir()) == before
