"""What an exported file scores on chosen images; the model of conftest.py says how bright they are."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from components.data.prepared import Prepared
from components.errors import UserError
from components.monitoring.champion_comparison import FEWEST, common_rows, scores

TRAINED = np.array([0, 5], dtype=np.uint64)


@pytest.fixture
def prepared(draw, tmp_path) -> Prepared:
    """Test images of the model's two classes and one more, and three OOD sets; the n-th image has the hash n."""
    images = {
        "test": draw(90, seed=1),
        "ood-one": draw(60, 64, seed=2),
        "ood-other": draw(60, 128, seed=3),
        "ood-far": draw(70, 192, seed=4),
    }
    folder = tmp_path / "prepared"
    folder.mkdir()
    split = [name for name, of_split in images.items() for _ in of_split]
    labels = np.where(np.array(split) == "test", np.arange(len(split)) % 3, -1)
    sha256 = [f"{n:016x}{'0' * 48}" for of_split in images.values() for n in range(len(of_split))]
    pq.write_table(pa.table({"split": split, "label": labels, "sha256": sha256}), folder / "manifest.parquet")
    for name, of_split in images.items():
        np.save(folder / f"{name}.npy", of_split)
    meta = {
        "classes": ["bright", "dark", "new"],
        "splits": {split: {} for split in images},
        "ood": {"one": "near", "other": "near", "far": "far"},
    }
    (folder / "dataset.json").write_text(json.dumps(meta))
    return Prepared.open(folder)


@pytest.fixture
def files(model, reference, tmp_path) -> tuple[Path, Path]:
    reference.save(tmp_path / "reference.npz")
    return model, tmp_path / "reference.npz"


def test_scores_are_those_of_the_chosen_images(prepared, files):
    rows = common_rows(prepared, TRAINED)
    assert [len(of_split) for of_split in rows.values()] == [88, 58, 58, 68]
    brightness = {s: prepared.images(s)[r].reshape(len(r), -1).mean(1) for s, r in rows.items()}
    names = np.array(prepared.classes)[prepared.labels("test")[rows["test"]]]
    right = [{True: "bright", False: "dark"}[b > 127.5] == n for b, n in zip(brightness["test"], names, strict=True)]
    expected = {
        split: roc_auc_score(
            np.repeat([0, 1], [88, len(brightness[split])]), np.r_[brightness["test"], brightness[split]]
        )
        for split in rows
        if split != "test"
    }
    found = scores(*files, prepared, rows)
    assert 0 < found["linear_accuracy"] < 2 / 3, "a class that it does not know"
    assert found == pytest.approx(
        {
            "linear_accuracy": np.mean(right),
            "near_ood_auroc": (expected["ood-one"] + expected["ood-other"]) / 2,
            "far_ood_auroc": expected["ood-far"],
        }
    )


def test_too_few_images_that_are_new_to_it_are_told(prepared):
    known = np.arange(60 - FEWEST + 1, dtype=np.uint64)
    with pytest.raises(UserError, match=r"it knows all but 49 images of ood-one, and 50 are wanted"):
        common_rows(prepared, known)
    assert len(common_rows(prepared, known[1:])["ood-one"]) == FEWEST


def test_a_file_that_is_none_or_takes_other_images_is_told(prepared, files, tmp_path):
    rows = common_rows(prepared, TRAINED)
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="ONNX Runtime can't open its file"):
        scores(tmp_path / "no.onnx", files[1], prepared, rows)
    np.save(prepared.root / "test.npy", np.zeros((90, 5, 5, 1), np.uint8))
    with pytest.raises(UserError, match=r"it takes images of shape \(4, 4, 1\), these have \(5, 5, 1\)"):
        scores(*files, prepared, rows)
