"""Files, images and sources that cannot be used: set aside with a reason, or one message and nothing written."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data.config import Conversions, DataConfig, OodSet, Source
from tests.components.data.preparing import fails, of_folder, quarantine, run


def test_unusable_files_are_quarantined_with_their_reason(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=9, dog=9)
    cat = folder / "cat"
    (cat / "fake.png").write_text("no image")
    (cat / "empty.png").write_bytes(b"")
    (cat / "short.png").write_bytes((cat / "000.png").read_bytes()[:60])
    Image.new("I;16", (8, 8), 300).save(cat / "deep.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(cat / "clear.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(cat / "opaque.png")
    Image.new("CMYK", (8, 8)).save(cat / "ink.jpg")
    Image.new("RGB", (9, 8)).save(cat / "large.png")
    Image.new("L", (8, 8)).save(cat / "moving.gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)])
    shutil.copy(cat / "000.png", cat / "twin.png")
    shutil.copy(cat / "001.png", folder / "dog" / "cat.png")
    strict = Conversions(transparent="reject", cmyk="reject")
    prepared = run(of_folder(folder, convert=strict), tmp_path / "prepared")
    reasons = quarantine(prepared.root)
    expected = {
        "cat/fake.png": "not an image",
        "cat/empty.png": "empty file",
        "cat/short.png": "truncated",
        "cat/deep.png": "16 bits",
        "cat/clear.png": "transparent",
        "cat/ink.jpg": "CMYK",
        "cat/large.png": "9×8, expected 8×8",
        "cat/moving.gif": "2 frames",
        "cat/twin.png": "duplicate of",
        "cat/001.png": "labelled 'cat', but the same picture is 'dog'",
        "dog/cat.png": "labelled 'dog', but the same picture is 'cat'",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
    assert sum(len(prepared.images(split)) for split in prepared.splits) == 18  # 17 of the noise images, opaque.png
    assert (prepared.meta["quarantined"], prepared.meta["duplicates_removed"]) == (8, 3)
    assert prepared.meta["quarantined_share"] == pytest.approx(8 / 29)


def test_what_is_converted_or_no_image_is_counted(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=9, dog=9, owl=1)
    cat = folder / "cat"
    for number in range(3):
        Image.new("RGBA", (8, 8), (90 * number, 2, 3, 128)).save(cat / f"clear{number}.png")
    Image.new("CMYK", (8, 8), (1, 2, 3, 4)).save(cat / "ink.jpg")
    for name in ("cat/story.txt", "cat/old.txt", "dog/notes.DAT", "README"):
        (folder / name).write_text("no image")
    for name in ("cat/Thumbs.db", "@eaDir/dog.png", "cat/._000.png", "__MACOSX/cat/000.png"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("of no interest")
    source = Source(folder=str(folder), min_class_images=2)
    config = DataConfig(image_size=8, channels=3, labelled=source, palette_colours=8, max_quarantined=0)
    prepared = run(config, tmp_path / "prepared")
    assert prepared.classes == ("cat", "dog")
    found = prepared.meta["sources"]["labelled"]
    assert (found["files"], found["quarantined"]) == (22, 0)
    assert found["converted"] == {"transparent on white": 3, "CMYK to sRGB": 1} == prepared.converted
    assert found["others"] == {".txt": 2, ".dat": 1, "no suffix": 1}
    assert found["small_classes"] == {"owl": 1}
    rows = pq.read_table(prepared.root / "manifest.parquet").to_pylist()
    assert {Path(row["path"]).name: row["converted"] for row in rows if row["converted"]} == {
        **{f"clear{number}.png": "transparent on white" for number in range(3)},
        "ink.jpg": "CMYK to sRGB",
    }


def test_files_that_cannot_be_opened_are_quarantined(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=9, dog=9)
    (folder / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "cat" / "broken.png").symlink_to("/proc/self/mem")  # reading it is an input/output error
    with (folder / "dog" / "long.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk, but would in memory
    (folder / "cat" / "000.png").rename(folder / "cat" / os.fsdecode(b"caf\xe9.png"))
    reasons = quarantine(run(of_folder(folder), tmp_path / "prepared").root)
    assert reasons["cat/gone.png"] == "can't be read: No such file or directory"
    assert reasons["cat/broken.png"].startswith("can't be read: ")
    assert "not an image" in reasons["dog/long.png"]
    assert len(reasons) == 3
    paths = pq.read_table(tmp_path / "prepared" / "manifest.parquet")["path"].to_pylist()
    assert str(folder / "cat" / "caf\\xe9.png") in paths


def test_links_to_folders_are_followed_but_not_in_circles(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder, more = image_folder("pets", cat=9, dog=9), image_folder("elsewhere", 4, first_seed=100)
    (folder / "cat" / "more").symlink_to(more)
    (folder / "cat" / "circle").symlink_to(folder)
    (more / "circle").symlink_to(more)
    prepared = run(of_folder(folder), tmp_path / "prepared")
    assert prepared.meta["sources"]["labelled"]["files"] == 22
    assert prepared.classes == ("cat", "dog")


def test_too_many_unusable_files_stop_the_run(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=9, dog=9)
    (folder / "cat" / "fake.png").write_text("no image")
    (folder / "dog" / "empty.png").write_bytes(b"")
    message = fails(of_folder(folder, max_quarantined=0.05), tmp_path / "data" / "prepared")
    assert "data.labelled: 2 of 20 images (10.0%)" in message
    assert "data.max_quarantined allows 5.0%" in message
    assert "empty file (1×)" in message
    assert str(folder / "dog" / "empty.png") in message
    listed = tmp_path / "data" / "quarantine.csv"
    assert str(listed) in message
    assert len(listed.read_text().splitlines()) == 3
    run(of_folder(folder), tmp_path / "data" / "prepared")
    assert not listed.exists()


def test_images_of_different_sizes_are_resized_where_asked(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=6, dog=6)
    image_folder("pets", size=12, first_seed=100, cow=6)
    message = fails(of_folder(folder, max_quarantined=0.01), tmp_path / "prepared")
    assert "size is 12×12, expected 8×8 (data.resize: true would resize it) (6×)" in message
    prepared = run(of_folder(folder, resize=True), tmp_path / "prepared")
    assert prepared.classes == ("cat", "cow", "dog")


def test_sources_that_cannot_be_learned_from(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    assert "not a folder" in fails(of_folder(tmp_path / "missing"), out)
    assert "has 1 class(es) to learn (cat), expected two or more" in fails(of_folder(image_folder("one", cat=9)), out)
    assert "has no labels" in fails(of_folder(image_folder("plain", 9)), out)
    small = of_folder(image_folder("small", cat=9, dog=2))
    assert "class 'dog' has 2 usable images, too few: the split 'test'" in fails(small, out)
    few = of_folder(image_folder("few", cat=9, dog=9))
    assert "12 training images are fewer than one batch (training.batch_size: 13)" in fails(few, out, minimum_train=13)
    unknown = of_folder(tmp_path / "few", ood={"held-out": OodSet("near", held_out_classes=("cow",))})
    assert "data.ood.held-out.held_out_classes: no class 'cow'. The classes are: cat, dog." in fails(unknown, out)


def test_a_class_whose_images_are_all_unusable_is_an_error(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=9, dog=9, owl=0)
    (folder / "owl" / "fake.png").write_text("no image")
    assert "class 'owl' has 0 usable images" in fails(of_folder(folder), tmp_path / "prepared")


def test_an_ood_set_equal_to_the_training_set_is_an_error(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=10, dog=10)
    same = of_folder(folder, max_quarantined=0.01, ood={"same": OodSet("far", source=Source(folder=str(folder)))})
    message = fails(same, tmp_path / "prepared")
    assert "data.ood.same: 20 of its 20 images are among the images that the model knows" in message
    assert str(folder / "cat") in message


def test_a_stray_training_image_is_taken_out_of_an_ood_set(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder, far = image_folder("pets", cat=10, dog=10), image_folder("far", 20, first_seed=100)
    shutil.copy(folder / "cat" / "000.png", far / "stray.png")
    config = of_folder(folder, max_quarantined=0.05, ood={"others": OodSet("far", source=Source(folder=str(far)))})
    prepared = run(config, tmp_path / "prepared")
    assert len(prepared.images("ood-others")) == 20
    assert "also in the split" in quarantine(prepared.root)["far/stray.png"]


def test_an_image_that_shuffling_leaves_as_it_is_is_no_ood_image(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder("pets", cat=10, dog=10)
    for grey in range(12):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / "dog" / f"blank{grey}.png")
    config = of_folder(folder, max_quarantined=0.01, ood={"shuffled": OodSet("far", shuffled_test=True)})
    prepared = run(config, tmp_path / "prepared")
    blank = {row for row, image in enumerate(prepared.images("test")) if np.ptp(image) == 0}
    assert blank
    assert len(prepared.images("ood-shuffled")) == len(prepared.images("test")) - len(blank)
    reasons = quarantine(prepared.root)
    assert len(reasons) == len(blank)
    for name, reason in reasons.items():
        assert name.startswith("dog/blank")
        assert reason == f"also in the split 'test', as {folder / name.removesuffix(' (shuffled)')}"


def test_shuffled_images_are_all_different(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    test = tmp_path / "official"
    for name in ("cat", "dog"):
        (test / name).mkdir(parents=True)
        for place in range(6):  # one pixel of sixteen is not white: many are alike when it has moved
            pixels = np.full((16, 3), 255, dtype=np.uint8)
            pixels[place + 6 * (name == "dog")] = 0
            Image.fromarray(pixels.reshape(4, 4, 3)).save(test / name / f"{place}.png")
    folder = image_folder("pets", size=4, cat=9, dog=9)
    ood = {"shuffled": OodSet("far", shuffled_test=True)}
    prepared = run(of_folder(folder, image_size=4, test=Source(folder=str(test)), ood=ood), tmp_path / "prepared")
    shuffled = [image.tobytes() for image in prepared.images("ood-shuffled")]
    assert len(set(shuffled)) == len(shuffled) > 0
    assert not set(shuffled) & {image.tobytes() for image in prepared.images("test")}
    reasons = list(quarantine(prepared.root).values())
    assert len(reasons) == 12 - len(shuffled)
    assert any(reason.startswith("duplicate of") for reason in reasons)


def test_images_without_a_label_are_quarantined(tmp_path: Path, noise: Callable[..., np.ndarray]) -> None:
    images = []
    for i in range(20):
        buffer = io.BytesIO()
        Image.fromarray(noise(i)).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    labels = pa.array([None, *(i % 2 for i in range(1, 20))], type=pa.int64())
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, type=image), "label": labels}), tmp_path / "a.parquet")
    source = Source(parquet=str(tmp_path / "a.parquet"))
    config = DataConfig(image_size=8, channels=3, labelled=source, palette_colours=8, max_quarantined=0.05)
    prepared = run(config, tmp_path / "prepared")
    assert prepared.classes == ("0", "1")
    assert list(quarantine(prepared.root).values()) == ["no label"]
