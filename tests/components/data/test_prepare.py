import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data.config import DataConfig, OodSet, Source
from components.data.decode import decode
from components.data.manifest import image_statistics
from components.data.prepare import prepare
from components.data.prepared import Prepared
from components.errors import UserError
from tests.components.data.preparing import fails, of_folder, quarantine, run

DIGITS = DataConfig(
    image_size=8,
    channels=1,
    labelled=Source(builtin="digits", limit=400),
    ood={
        "held-out": OodSet("near", held_out_classes=("4", "7")),
        "shuffled": OodSet("far", shuffled_test=True),
        "photos": OodSet("far", source=Source(builtin="photo-patches", limit=60)),
    },
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return run(DIGITS, tmp_path_factory.mktemp("digits") / "prepared")


def test_the_exact_set_of_files(digits: Prepared) -> None:
    arrays = {"train.npy", "val.npy", "test.npy", "ood-held-out.npy", "ood-shuffled.npy", "ood-photos.npy"}
    others = {"palette.npy", "manifest.parquet", "quarantine.csv", "dataset.json", "training.json"}
    assert {path.name for path in digits.root.iterdir()} == arrays | others
    assert [path.name for path in digits.root.parent.iterdir()] == ["prepared"]


def test_what_the_reader_gives(digits: Prepared) -> None:
    assert digits.splits == ("train", "val", "test", "ood-held-out", "ood-shuffled", "ood-photos")
    assert digits.classes == ("0", "1", "2", "3", "5", "6", "8", "9")
    assert digits.ood == {"held-out": "near", "shuffled": "far", "photos": "far"}
    assert (digits.image_size, digits.channels, digits.pretrain_split) == (8, 1, "train")
    assert len(digits.palette) == 17
    images = digits.images("train")
    assert isinstance(images, np.memmap)
    assert (images.dtype, images.shape[1:]) == (np.uint8, (8, 8, 1))
    for split in ("train", "val", "test"):
        assert digits.labels(split).dtype == np.int64
        assert len(digits.labels(split)) == len(digits.images(split))
        assert set(digits.labels(split)) == set(range(8))
    assert set(digits.labels("ood-held-out")) == {-1}
    total = sum(len(digits.images(split)) for split in ("train", "val", "test", "ood-held-out"))
    assert total == 400
    with pytest.raises(UserError, match="no split 'dev'; it has train, val"):
        digits.images("dev")
    with pytest.raises(UserError, match="no prepared data set"):
        Prepared.open(digits.root / "elsewhere")


def test_labels_and_pixels_are_those_of_the_source(digits: Prepared) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    manifest = pq.read_table(digits.root / "manifest.parquet").to_pylist()
    for row in manifest:
        image = digits.images(row["split"])[row["index"]]
        assert hashlib.sha256(image.tobytes()).hexdigest() == row["sha256"]
        if row["source"] == "digits":
            number = int(row["path"].removeprefix("digits#"))
            np.testing.assert_array_equal(np.rint(image[..., 0] / 255 * 16), source.images[number])
            assert row["class_name"] == str(source.target[number])
            held_out = row["class_name"] in ("4", "7")
            assert row["label"] == (-1 if held_out else digits.classes.index(row["class_name"]))
            assert (row["split"] == "ood-held-out") == held_out


def test_manifest_statistics(digits: Prepared, noise: Callable[..., np.ndarray]) -> None:
    images = np.stack([noise(i) for i in range(3)] + [np.full((8, 8, 3), 7, dtype=np.uint8)])
    found = image_statistics(images)
    for i, image in enumerate(images):
        for c in range(3):
            assert found[f"mean_{c}"][i] == pytest.approx(image[..., c].astype(float).mean())
            assert found[f"std_{c}"][i] == pytest.approx(image[..., c].astype(float).std())
        histogram = np.array(Image.fromarray(image).convert("L").histogram()) / 64
        assert found["entropy"][i] == pytest.approx(-sum(p * np.log2(p) for p in histogram if p))
    assert found["entropy"][3] == 0
    columns = "split index source path sha256 label class_name converted width height channels mean_0 std_0 entropy"
    assert pq.read_schema(digits.root / "manifest.parquet").names == columns.split()


def test_shuffled_images_hold_the_pixels_of_the_test_images(digits: Prepared) -> None:
    test, shuffled = digits.images("test"), digits.images("ood-shuffled")
    np.testing.assert_array_equal(np.sort(test.reshape(len(test), -1)), np.sort(shuffled.reshape(len(test), -1)))
    moved = (test != shuffled).reshape(len(test), -1)
    assert moved.any(axis=1).all()
    assert not (moved == moved[0]).all(), "each image has a permutation of its own"


def test_shuffling_keeps_channels_together(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    config = of_folder(image_folder("pets", cat=5, dog=5), ood={"shuffled": OodSet("far", shuffled_test=True)})
    prepared = run(config, tmp_path / "prepared")
    for test, shuffled in zip(prepared.images("test"), prepared.images("ood-shuffled"), strict=True):
        assert sorted(map(tuple, test.reshape(-1, 3))) == sorted(map(tuple, shuffled.reshape(-1, 3)))


def test_the_seed_determines_every_byte(digits: Prepared, tmp_path: Path) -> None:
    again, other = run(DIGITS, tmp_path / "again"), run(DIGITS, tmp_path / "other", seed=1)
    for file in digits.root.iterdir():
        assert file.read_bytes() == (again.root / file.name).read_bytes(), file.name
    assert other.fingerprint() != digits.fingerprint()
    assert other.fingerprint("ood-photos") != digits.fingerprint("ood-photos")


def test_the_fingerprint_covers_pixels_labels_and_order(digits: Prepared) -> None:
    lines = [
        f"{hashlib.sha256(image.tobytes()).hexdigest()} {label}\n"
        for image, label in zip(digits.images("val"), digits.labels("val"), strict=True)
    ]
    assert digits.fingerprint("val") == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_an_official_test_set(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=10, dog=10, owl=10)
    official = image_folder("official", first_seed=100, cat=4, dog=4, owl=4)
    shutil.copy(folder / "cat" / "003.png", official / "cat" / "seen.png")
    test = Source(folder=str(official))
    near = {"owls": OodSet("near", held_out_classes=("owl",))}
    prepared = run(of_folder(folder, test=test, ood=near), tmp_path / "prepared")
    assert prepared.classes == ("cat", "dog")
    assert [len(prepared.images(s)) for s in ("train", "val", "test")] == [17, 2, 9]
    assert len(prepared.images("ood-owls")) == 14
    assert "also in the split 'test'" in quarantine(prepared.root)["cat/003.png"]
    shutil.rmtree(tmp_path / "prepared")
    image_folder("official", first_seed=200, emu=1)
    message = fails(of_folder(folder, test=test, ood=near), tmp_path / "prepared")
    assert "data.test" in message
    assert "emu" in message
    shutil.rmtree(official / "emu")
    shutil.rmtree(official / "dog")
    assert "class 'dog' has no usable image" in fails(of_folder(folder, test=test, ood=near), tmp_path / "prepared")


def test_a_class_too_small_to_learn_is_none_in_the_official_test_set(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    labelled = Source(folder=str(image_folder("pets", cat=10, dog=10, owl=3)), min_class_images=5)
    official = Source(folder=str(image_folder("official", first_seed=100, cat=4, dog=4, owl=4)))
    config = DataConfig(image_size=8, channels=3, labelled=labelled, test=official, palette_colours=8)
    prepared = run(config, tmp_path / "prepared")
    assert prepared.classes == ("cat", "dog")
    assert len(prepared.images("test")) == 8


def test_pretraining_images_are_apart_from_those_of_evaluation(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder("pets", cat=10, dog=10, owl=10)
    unlabelled = image_folder("many", 20, first_seed=100)
    for path in folder.glob("*/*.png"):
        shutil.copy(path, unlabelled / f"{path.parent.name}-{path.name}")
    near = {"owls": OodSet("near", held_out_classes=("owl",))}
    prepared = run(of_folder(folder, pretrain=Source(folder=str(unlabelled)), ood=near), tmp_path / "prepared", 34)
    assert prepared.pretrain_split == "pretrain"
    hashes = {split: {x.tobytes() for x in prepared.images(split)} for split in prepared.splits}
    assert hashes["train"] < hashes["pretrain"]
    for split in ("val", "test", "ood-owls"):
        assert not hashes[split] & hashes["pretrain"]
    assert len(hashes["pretrain"]) == 20 + len(hashes["train"])
    assert set(prepared.labels("pretrain")) == {-1}
    labelled = run(of_folder(folder, pretrain=Source(folder=str(folder)), ood=near), tmp_path / "labelled")
    manifest = pq.read_table(labelled.root / "manifest.parquet").to_pylist()
    assert {row["class_name"] for row in manifest if row["split"] == "pretrain"} == {"cat", "dog"}


def test_images_to_pretrain_on_have_the_labels_that_the_labelled_ones_have(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """By the classes' names. Others have none; nor has an OOD image whose class happens to have the same name."""
    folder = image_folder("pets", cat=5, dog=5, owl=5)
    many = image_folder("many", first_seed=100, ant=3, dog=4, owl=5)
    other = image_folder("other", first_seed=200, cat=3, dog=3)
    ood = {"owls": OodSet("near", held_out_classes=("owl",)), "other": OodSet("far", source=Source(folder=str(other)))}
    config = of_folder(folder, pretrain=Source(folder=str(many)), ood=ood)
    prepared = run(config, tmp_path / "prepared")
    assert prepared.labels("pretrain").tolist() == [-1] * 3 + [prepared.classes.index("dog")] * 4
    assert {label for name in ("owls", "other") for label in prepared.labels(f"ood-{name}")} == {-1}
    before = (prepared.root / "training.json").read_bytes()
    (many / "dog" / "000.png").rename(many / "ant" / "moved.png")
    shutil.rmtree(prepared.root)
    prepare(config, 0, prepared.root, 2)
    assert (prepared.root / "training.json").read_bytes() != before, "other labels are another training"


def test_progress_is_shown_as_tqdm_takes_it(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    seen = []

    def progress(iterable: Any, total: int, desc: str) -> Any:
        seen.append((total, desc))
        return iterable

    folder = image_folder("pets", cat=5, dog=5)
    prepare(of_folder(folder), 0, tmp_path / "prepared", 2, progress)
    assert seen == [(10, f"reading {folder}")]


def test_dataset_json_holds_the_constants(digits: Prepared) -> None:
    meta = json.loads((digits.root / "dataset.json").read_text())
    assert meta["seed"] == 0
    assert meta["constants"]["val_fraction"] == 0.1
    assert meta["sources"]["labelled"] == {
        "name": "digits",
        "files": 400,
        "quarantined": 0,
        "quarantined_share": 0.0,
        "converted": {},
        "others": {},
        "small_classes": {},
    }


def test_real_images(image_sets: Path, tmp_path: Path) -> None:
    config = DataConfig(
        image_size=32,
        channels=3,
        labelled=Source(parquet=str(image_sets / "cifar10-train.parquet"), limit=600, exclude_classes=("ship",)),
        test=Source(parquet=str(image_sets / "cifar10-test.parquet"), limit=300, exclude_classes=("ship",)),
        pretrain=Source(parquet=str(image_sets / "tinyimagenet32-train-*.parquet"), limit=300),
        ood={
            "dogs": OodSet("near", held_out_classes=("dog",)),
            "digits": OodSet("far", source=Source(parquet=str(image_sets / "mnist-test.parquet"), limit=100)),
        },
    )
    prepared = run(config, tmp_path / "prepared")
    assert prepared.classes == ("airplane", "automobile", "bird", "cat", "deer", "frog", "horse", "truck")
    assert prepared.splits == ("train", "val", "test", "pretrain", "ood-dogs", "ood-digits")
    assert len(prepared.palette) > 400
    assert prepared.meta["quarantined"] == 0
    row = pq.read_table(prepared.root / "manifest.parquet").to_pylist()[5]
    number, inner = row["path"].split("#")[1].split(":")
    assert inner.startswith(row["class_name"]), "the files' own paths begin with the class"
    import io

    raw = pq.read_table(image_sets / "cifar10-train.parquet")["image"][int(number)]["bytes"].as_py()
    np.testing.assert_array_equal(prepared.images("train")[5], np.asarray(Image.open(io.BytesIO(raw))))


def test_another_ood_set_changes_nothing_that_pretraining_reads(digits: Prepared, tmp_path: Path) -> None:
    ood = {**DIGITS.ood, "more": OodSet("far", source=Source(builtin="photo-patches", limit=7))}
    other = run(dataclasses.replace(DIGITS, ood=ood), tmp_path / "prepared")
    for name in ("training.json", "palette.npy", "train.npy", "val.npy"):
        assert (other.root / name).read_bytes() == (digits.root / name).read_bytes()
    assert other.fingerprint() != digits.fingerprint()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of tall JPEGs, one of which is smaller than the side in the tests below."""
    rng = np.random.default_rng(0)
    for number in range(16):
        side = 40 if number else 16
        image = Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)).resize((side, 2 * side))
        folder = tmp_path / "photographs" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number:02}.jpg")
    return tmp_path / "photographs"


@pytest.mark.parametrize("apart", [False, True], ids=["labelled", "pretrain"])
def test_training_images_are_kept_finer_and_all_else_is_as_without(
    photographs: Path, image_folder: Callable[..., Path], tmp_path: Path, apart: bool
) -> None:
    many = Source(folder=str(image_folder("many", 9, size=50))) if apart else None
    options: dict[str, Any] = {"resize": True, "pretrain": many, "fit": "pad"}
    without = run(of_folder(photographs, **options), tmp_path / "without")
    config = of_folder(photographs, **options, stored_size=32)
    prepared = run(config, tmp_path / "with")
    written = {file.name for file in prepared.root.iterdir()}
    assert written - {file.name for file in without.root.iterdir()} == {"finer.npy"}
    for file in without.root.iterdir():
        if file.suffix != ".json":
            assert (prepared.root / file.name).read_bytes() == file.read_bytes()
    finer = prepared.finer()
    assert isinstance(finer, np.memmap)
    assert finer.shape == (len(prepared.images(prepared.pretrain_split)), 32, 32, 3)
    assert (without.finer(), without.finer_size, prepared.finer_size) == (None, None, 32)
    manifest = pq.read_table(prepared.root / "manifest.parquet").to_pylist()
    for row in manifest:
        path = Path(row["path"])
        np.testing.assert_array_equal(prepared.images(row["split"])[row["index"]], decode(path, **prepared.reading))
        if row["split"] == prepared.pretrain_split:
            larger = decode(path, **{**prepared.reading, "image_size": 32})
            np.testing.assert_array_equal(finer[row["index"]], larger)


def test_other_finer_images_are_another_training(photographs: Path, tmp_path: Path) -> None:
    keys = set()
    for side in (None, 8, 16, 32):
        prepared = run(of_folder(photographs, resize=True, stored_size=side), tmp_path / str(side))
        keys.add((prepared.training_fingerprint(), (prepared.root / "training.json").read_bytes()))
    assert len(keys) == 3, "image_size itself is as without the key"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stored_size": 7}, r"stored_size must lie between image_size \(8\) and 1024, not 7"),
        ({"stored_size": 2000}, r"between image_size \(8\) and 1024, not 2000"),
        ({"stored_size": 9, "resize": False}, "stored_size: 9 needs resize: true"),
    ],
)
def test_sizes_to_store_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_folder(Path("images"), **{"resize": True, **options})
