import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components.data.config import DataConfig, OodSet, Source
from components.data.sources.image_files import key_of, list_sources, sources_by_role
from components.errors import UserError


def config(folder: Path, **others: Source) -> DataConfig:
    return DataConfig(image_size=8, channels=3, labelled=Source(folder=str(folder)), **others)


def listing(folder: Path) -> dict[str, object]:
    return dict(list_sources(config(folder))["labelled"])


def test_a_listing_tells_how_many_files_there_are(image_folder: Callable[..., Path]) -> None:
    assert listing(image_folder("pets", cat=3, dog=2))["files"] == 5
    assert listing(image_folder("flat", 4))["files"] == 4


def test_a_listing_counts_files_by_the_kind_of_their_name(image_folder: Callable[..., Path]) -> None:
    folder = image_folder("pets", cat=3, dog=2)
    for name in ("README", "cat/000.TXT", "dog/a.txt", "dog/Thumbs.db", "cat/.hidden"):
        (folder / name).write_text("no image")
    (folder / "@eaDir" / "cat").mkdir(parents=True)
    (folder / "@eaDir" / "cat" / "thumb.jpg").write_text("small")
    (folder / "dog" / "gone.png").symlink_to("nowhere")
    assert listing(folder)["kinds"] == {".png": 6, ".txt": 2, "no suffix": 1}


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "rewritten", "another class"])
def test_whatever_happens_to_a_file_is_noticed(image_folder: Callable[..., Path], change: str) -> None:
    folder = image_folder("pets", cat=3, dog=2)
    before = listing(folder)
    image = folder / "cat/000.png"
    if change == "added":
        (folder / "cat/new.png").write_bytes(b"")
    elif change == "removed":
        image.unlink()
    elif change == "renamed":
        image.rename(folder / "cat/other.png")
    elif change == "rewritten":
        content, written = image.read_bytes(), image.stat().st_mtime_ns
        image.write_bytes(content[::-1])
        os.utime(image, ns=(written, written + 1))
    else:
        image.rename(folder / "dog/other.png")
    assert listing(folder)["fingerprint"] != before["fingerprint"]


def test_what_changes_nothing(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("pets", cat=3, dog=2)
    before = listing(folder)
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "cat/.hidden.png").write_bytes(b"")
    (folder / "cat/000.png").rename(folder / "cat/aside")
    (folder / "cat/aside").rename(folder / "cat/000.png")
    assert listing(folder) == before
    (tmp_path / "link").symlink_to(folder)  # as in a workspace
    assert listing(tmp_path / "link")["fingerprint"] == before["fingerprint"]


def test_parquet_files(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.parquet").write_bytes(b"not looked into")
    wanted = DataConfig(image_size=8, channels=3, labelled=Source(parquet=str(tmp_path / "*.parquet")))
    before = list_sources(wanted)["labelled"]
    assert before["files"] == 2
    (tmp_path / "a.parquet").write_bytes(b"another")
    after = list_sources(wanted)["labelled"]
    assert after["fingerprint"] != before["fingerprint"]
    (tmp_path / "classes.json").write_text('["cat", "dog"]')
    named = list_sources(wanted)["labelled"]
    assert named["fingerprint"] != after["fingerprint"]


def test_every_source_of_a_run_by_its_role(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    wanted = DataConfig(
        image_size=8,
        channels=3,
        labelled=Source(builtin="digits"),
        pretrain=Source(torchvision="CIFAR10", root=str(tmp_path / "not there yet")),
        test=Source(folder=str(image_folder("test", cat=1))),
        ood={"other": OodSet("far", source=Source(folder=str(tmp_path / "missing"))), "own": OodSet("near", ("4",))},
    )
    assert [key_of(role) for role in sources_by_role(wanted)] == [
        "data.labelled",
        "data.test",
        "data.pretrain",
        "data.ood.other.source",
    ]
    with pytest.raises(
        UserError, match=r"^data\.ood\.other\.source\.folder: .*missing is not a folder.*remove data\.ood\.other from"
    ):
        list_sources(wanted)
    image_folder("missing", 2)
    found = list_sources(wanted)
    assert found["labelled"] == {"name": "digits"}
    assert found["pretrain"] == {"name": "CIFAR10"}
    assert found["ood-other"]["files"] == 2
