import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.data.config import DataConfig, OodSet, Source
from components.data.prepare import prepare
from components.data.prepared import Prepared
from components.errors import UserError
from pipelines.stages.prepare import notes
from pipelines.validation.prepared_data import validate

DIGITS = DataConfig(
    image_size=8,
    channels=1,
    labelled=Source(builtin="digits", limit=300),
    pretrain=Source(builtin="digits"),
    ood={
        "held-out": OodSet("near", held_out_classes=("4", "7")),
        "photos": OodSet("far", source=Source(builtin="photo-patches", limit=60)),
    },
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits") / "prepared"
    prepare(DIGITS, 0, out, 2)
    return out


@pytest.fixture
def damaged(digits: Path, tmp_path: Path) -> Callable[[Callable[[pd.DataFrame], None]], str]:
    """Change the manifest with a function, validate, and return the message of the error."""

    def make(change: Callable[[pd.DataFrame], None]) -> str:
        prepared = tmp_path / "data" / "prepared"
        shutil.copytree(digits, prepared)
        manifest = pd.read_parquet(prepared / "manifest.parquet")
        change(manifest)
        manifest.to_parquet(prepared / "manifest.parquet")
        with pytest.raises(UserError) as caught:
            validate(prepared, tmp_path / "data" / "validation", DIGITS)
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["prepared", "validation-failed"]
        return str(caught.value)

    return make


def first(manifest: pd.DataFrame, split: str) -> int:
    return int(np.flatnonzero(manifest["split"] == split)[0])


def test_a_sound_data_set_passes(digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "validation"
    (tmp_path / "validation-failed").mkdir()  # of an earlier run
    summary = validate(digits, out, DIGITS)
    assert [path.name for path in tmp_path.iterdir()] == ["validation"]
    assert sorted(path.name for path in out.iterdir()) == ["gx", "passed.json", "summary.json", "summary.md"]
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["success"]
    assert len(summary["expectations"]) > 50
    splits = {"train", "val", "test", "pretrain", "ood-held-out", "ood-photos"}
    assert {check["split"] for check in summary["expectations"]} == {None, *splits}
    assert "Calculating Metrics" not in "".join(capfd.readouterr())
    first_summary = (out / "summary.json").read_bytes()
    validate(digits, out, DIGITS)
    assert (out / "summary.json").read_bytes() == first_summary, "the same data set gives the same summary"


def test_the_report_can_be_moved_and_its_links_hold(digits: Path, tmp_path: Path) -> None:
    validate(digits, tmp_path / "validation", DIGITS)
    moved = tmp_path / "elsewhere"
    (tmp_path / "validation").rename(moved)
    links = re.findall(r"\]\((.+?)\)", (moved / "summary.md").read_text())
    assert len(links) == 4
    for link in links:
        page = (moved / link).read_text()
        assert "Succeeded" in page
        for target in re.findall(r'href="([^":#?]+\.html)"', page):
            assert ((moved / link).parent / target).exists(), target
    for file in moved.rglob("*"):
        if file.suffix in (".json", ".yml", ".html", ".md"):
            assert str(tmp_path) not in file.read_text(), f"{file} names the folder it was made in"


def test_pictures_where_they_must_not_be(damaged: Callable[..., str], tmp_path: Path) -> None:
    def change(manifest: pd.DataFrame) -> None:
        for split, row, twin in (
            ("val", first(manifest, "val"), first(manifest, "train")),
            ("ood-photos", first(manifest, "ood-photos"), first(manifest, "pretrain")),
            ("test", first(manifest, "test"), first(manifest, "test") + 1),
        ):
            assert manifest.loc[row, "split"] == split
            manifest.loc[row, "sha256"] = manifest.loc[twin, "sha256"]

    message = damaged(change)
    apart = r"no picture is also in a split that must be apart \(expect_column_values_to_be_in_set\) in split "
    assert re.search(apart + r"val, 1 rows, for example digits#\d+\n", message)
    assert re.search(apart + "train, ", message)
    assert re.search(apart + r"ood-photos, 1 rows, for example photo-patches#\d+\n", message)
    assert "no picture occurs twice (expect_column_values_to_be_unique) in split test, 2 rows" in message
    report = tmp_path / "data" / "validation-failed"
    assert str(report / "summary.md") in message
    assert "**no** | val" in (report / "summary.md").read_text()
    assert not json.loads((report / "summary.json").read_text())["success"]


def test_classes_and_statistics_that_are_off(damaged: Callable[..., str]) -> None:
    def change(manifest: pd.DataFrame) -> None:
        absent = (manifest["split"] == "val") & (manifest["class_name"] == "9")
        manifest.loc[absent, ["label", "class_name"]] = [0, "0"]
        manifest.loc[manifest["split"] == "val", "entropy"] = 0.0
        test = manifest["split"] == "test"
        manifest.loc[test, "mean_0"] = 255 - manifest.loc[test, "mean_0"]
        manifest.drop(index=first(manifest, "pretrain"), inplace=True)

    message = damaged(change)
    assert "every class occurs, and no other label (expect_column_distinct_values_to_equal_set) in split val" in message
    assert "every class has images (expect_column_values_to_be_between) in split val, 1 rows, for example 9" in message
    assert "classes have the shares that they have in train" in message
    assert "at least 99% of the images are not of a single grey level" in message
    drift = r"`mean_0` is on average what it is in train \(expect_column_mean_to_be_between\) in split test.*digits#"
    assert re.search(drift, message)
    assert "manifest and array hold as many images" in message
    assert "for example pretrain" in message


def test_values_that_cannot_be(damaged: Callable[..., str]) -> None:
    def change(manifest: pd.DataFrame) -> None:
        manifest.loc[3, "std_0"] = 130.0
        manifest.loc[4, "entropy"] = np.nan
        manifest.loc[5, "width"] = 9
        manifest.loc[6, "sha256"] = "unknown"
        manifest.loc[first(manifest, "ood-photos"), "label"] = 2
        manifest.loc[first(manifest, "pretrain"), "label"] = 8
        del manifest["height"]

    message = damaged(change)
    for claim in (
        "`std_0` lies between 0 and 127.5",
        "`entropy` is never missing",
        "`width` is 8",
        "`height` is 8",
        "hashes are SHA-256",
        "no image has a label",
        "every label is of a class, or −1 (expect_column_values_to_be_in_set) in split pretrain, 1 rows",
        "the manifest has its columns",
    ):
        assert claim in message
    assert "violates 8 of" in message


def test_too_many_quarantined(digits: Path, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    shutil.copytree(digits, prepared)
    meta = json.loads((prepared / "dataset.json").read_text())
    meta["sources"]["labelled"].update(quarantined=9, quarantined_share=0.03)
    (prepared / "dataset.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=r"at most 1.0% of a source's files are quarantined .*for example labelled"):
        validate(prepared, tmp_path / "validation", DIGITS)


def test_names_of_files_mean_nothing_in_the_report(damaged: Callable[..., str], tmp_path: Path) -> None:
    def change(manifest: pd.DataFrame) -> None:
        row = first(manifest, "val")
        manifest.loc[row, ["path", "mean_0"]] = ["<b>a|b</b> [c](d) `e`.png", 300.0]

    assert "<b>a|b</b> [c](d) `e`.png" in damaged(change)
    (line,) = (
        line
        for line in (tmp_path / "data/validation-failed/summary.md").read_text().splitlines()
        if "`mean_0` lies between" in line
    )
    assert r"| &lt;b&gt;a\|b&lt;/b&gt; \[c\](d) \`e\`.png |" in line


@pytest.fixture
def noise_folder(tmp_path: Path) -> Callable[..., Path]:
    """`noise_folder(cat=15, dog=14)`: so many images a class."""

    def make(**classes: int) -> Path:
        rng = np.random.default_rng(0)
        for name, count in classes.items():
            (tmp_path / "images" / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
        return tmp_path / "images"

    return make


@pytest.mark.parametrize("counts", [(15, 14), (16, 12), (13, 25, 25), (4, 90)])
def test_shares_that_rounding_moves_are_no_violation(
    noise_folder: Callable[..., Path], tmp_path: Path, counts: tuple[int, ...]
) -> None:
    folder = noise_folder(**{f"class{number}": count for number, count in enumerate(counts)})
    config = DataConfig(image_size=8, channels=3, labelled=Source(folder=str(folder)), palette_colours=8)
    prepare(config, 0, tmp_path / "prepared", 2)
    checks = validate(tmp_path / "prepared", tmp_path / "validation", config)["expectations"]
    assert all(check["success"] for check in checks if "shares" in check["claim"])


def test_the_report_names_conversions_and_files_left_alone(noise_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = noise_folder(cat=20, dog=20, owl=1)
    for number in range(3):
        clear = Image.open(folder / "dog" / f"{number}.png")
        clear.putalpha(99)
        clear.save(folder / "cat" / f"clear{number}.png")
    (folder / "cat" / "story.txt").write_text("once")
    source = Source(folder=str(folder), min_class_images=2)
    config = DataConfig(8, 3, labelled=source, palette_colours=8, resize=True, stored_size=16)
    prepare(config, 0, tmp_path / "prepared", 2)
    validate(tmp_path / "prepared", tmp_path / "validation", config)
    report = (tmp_path / "validation" / "summary.md").read_text()
    assert "| 43 | 0 | transparent on white 3 | .txt 1, the small class owl 1 |" in report
    assert notes(Prepared.open(tmp_path / "prepared")) == [
        f"{folder}: converted 3 images: transparent on white; 1 other file left alone: .txt 1; "
        "left out, too few images: owl (1)"
    ]
    claim = "each image that views are cut out of is there with 16×16 pixels, too"
    assert f"| yes | all | {claim} |" in report
    finer = tmp_path / "prepared" / "finer.npy"
    np.save(finer, np.load(finer)[1:])
    with pytest.raises(UserError, match=claim):
        validate(tmp_path / "prepared", tmp_path / "validation", config)
