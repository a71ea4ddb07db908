import csv
import itertools
import os
import pickle
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.data.config import DataConfig, Source
from components.data.ingest import Batch, taken_in, undo_unfinished
from components.errors import UserError

LABELLED = DataConfig(
    image_size=8, channels=3, labelled=Source(folder="collection"), pretrain=Source(folder="many"), max_quarantined=0.4
)


@pytest.fixture
def collection(image_folder: Callable[..., Path]) -> Path:
    """Three classes of PNG noise; their seeds begin at 0."""
    return image_folder("collection", ant=2, bee=2, cow=2)


def take(incoming: Path, config: DataConfig = LABELLED, new_classes: bool = False) -> Batch:
    with taken_in(incoming, config, incoming.parent, new_classes) as batch:
        assert visible(incoming) == set(), "while the block runs, the images are in the collection"
    return batch


def refusal(incoming: Path, config: DataConfig = LABELLED) -> str:
    """The message with which an intake is refused, leaving everything as it was."""
    before = contents(incoming.parent)
    with pytest.raises(UserError) as caught, taken_in(incoming, config, incoming.parent):
        pass
    assert contents(incoming.parent) == before
    return str(caught.value)


def visible(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not hidden(path.relative_to(folder))
    }


def hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, but for the lock, which stays."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".intake.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def reasons(folder: Path) -> dict[str, str]:
    with (folder / "reasons.csv").open(newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def test_images_of_known_classes(collection: Path, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    incoming = image_folder("incoming", first_seed=50, ant=1, cow=3)
    (incoming / "cow/000.png").rename(incoming / "cow/young.png")
    written = (incoming / "ant/000.png").stat().st_mtime_ns
    batch = take(incoming)
    assert batch == Batch(
        "data.labelled.folder", collection, {"ant": 1, "cow": 3}, (), (), tmp_path / "incoming-rejected"
    )
    # names that are taken get a number, and times are kept
    assert visible(collection / "ant") == {"000.png", "001.png", "000-1.png"}
    assert visible(collection / "cow") == {"000.png", "001.png", "001-1.png", "002.png", "young.png"}
    assert (collection / "ant/000-1.png").stat().st_mtime_ns == written
    assert not (tmp_path / "incoming-rejected").exists()
    assert [path.name for path in collection.glob(".*")] == [".intake.lock"]


def test_images_without_a_class(image_folder: Callable[..., Path]) -> None:
    many, incoming = image_folder("many", 2), image_folder("incoming", 3, first_seed=50)
    batch = take(incoming)
    assert (batch.key, batch.taken) == ("data.pretrain.folder", {"": 3})
    assert visible(many) == {"000.png", "001.png", "000-1.png", "001-1.png", "002.png"}


def test_rejected_files_and_copies(collection: Path, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    incoming = image_folder("incoming", first_seed=50, ant=7)
    (incoming / "ant/broken.png").write_bytes((incoming / "ant/000.png").read_bytes()[:-30])
    shutil.copy(collection / "ant/001.png", incoming / "ant/again.png")
    shutil.copy(collection / "bee/001.png", incoming / "ant/mistaken.png")
    shutil.copy(incoming / "ant/006.png", incoming / "ant/twice.png")
    (incoming / "ant/link.png").symlink_to(collection / "ant/000.png")
    Image.new("RGB", (9, 8)).save(incoming / "ant/large.png")
    batch = take(incoming)
    assert batch.taken == {"ant": 7}
    told = reasons(tmp_path / "incoming-rejected")
    assert told == dict(batch.rejected)
    assert told["ant/broken.png"].startswith("damaged or truncated")
    assert told["ant/again.png"] == "the same file is in the collection as ant/001.png"
    assert told["ant/twice.png"] == "the same file has arrived as ant/006.png"
    assert told["ant/mistaken.png"] == "the same file is in the collection as bee/001.png, of another class"
    assert told["ant/link.png"].startswith("a link")
    assert told["ant/large.png"].startswith("size is 9×8, expected 8×8")
    assert visible(tmp_path / "incoming-rejected") == {"reasons.csv", *told}

    # a later batch adds to the list, and overwrites nothing
    (incoming / "ant/broken.png").write_bytes(b"")
    image_folder("incoming", first_seed=70, ant=2)
    take(incoming)
    later = reasons(tmp_path / "incoming-rejected")
    assert later == told | {"ant/broken-1.png": "empty file"}


def test_other_files_stay_and_links_to_folders_are_rejected(
    collection: Path, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    incoming, more = image_folder("incoming", first_seed=50, ant=3), image_folder("more", 2, first_seed=60)
    for name in ("ant/000.txt", "README.md"):
        (incoming / name).write_text("about the images")
    (collection / "README.md").write_text("about the collection")
    (incoming / "ant/more").symlink_to(more)
    with taken_in(incoming, LABELLED, tmp_path) as batch:
        pass
    assert (batch.taken, batch.others) == ({"ant": 3}, {".md": 1, ".txt": 1})
    assert visible(incoming) == {"ant/000.txt", "README.md"}
    assert [(line.file, line.reason) for line in batch.rejected] == [("ant/more", "a link, expected the image itself")]
    assert visible(more) == {"000.png", "001.png"}
    assert "holds no image (2 other files left alone: .md 1, .txt 1)" in refusal(incoming)


def test_images_without_a_class_may_be_collected_beside_folders(image_folder: Callable[..., Path]) -> None:
    many, incoming = image_folder("many", 1, trip=2), image_folder("incoming", 1, first_seed=50)
    assert take(incoming).taken == {"": 1}
    assert visible(many) == {"000.png", "000-1.png", "trip/000.png", "trip/001.png"}


def test_too_many_that_cannot_be_used(collection: Path, image_folder: Callable[..., Path]) -> None:
    incoming = image_folder("incoming", first_seed=50, ant=4)
    for number in range(4):
        (incoming / f"ant/text-{number}.png").write_text("no image")
    message = refusal(incoming)
    assert message.startswith(f"incoming: 4 of the 8 images in {incoming} (50.0%) can't be used")
    assert "data.max_quarantined allows 40.0%" in message
    assert "ant/text-0.png (not an image" in message
    assert "text-3" not in message
    assert "Nothing was moved" in message


def test_what_is_no_batch(collection: Path, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    assert "incoming is not a folder" in refusal(incoming)
    (incoming / "ant").mkdir(parents=True)
    (incoming / ".partial.png").write_bytes(b"")
    assert "incoming is empty" in refusal(incoming)
    image_folder("incoming", 1, first_seed=50, ant=1)
    assert "not both" in refusal(incoming)


def test_a_new_class_must_be_meant(collection: Path, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    incoming = image_folder("incoming", first_seed=50, ants=2, dog=1)
    message = refusal(incoming)
    assert "class 'ants' that data.labelled.folder lacks, did you mean 'ant'" in message
    assert "new_classes=true" in message
    assert "Known: ant, bee, cow" in message
    assert take(incoming, new_classes=True).new_classes == ("ants", "dog")
    assert visible(collection / "ants") == {"000.png", "001.png"}


def test_no_folder_to_take_them_into(collection: Path, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    builtin = DataConfig(image_size=8, channels=3, labelled=Source(builtin="digits"))
    for classes in ({"ant": 1}, {}):
        incoming = image_folder("incoming", 0 if classes else 1, first_seed=50, **classes)
        message = refusal(incoming, builtin)
        assert "data.labelled.folder" in message
        assert "data.pretrain.folder" in message
        shutil.rmtree(incoming)
    assert "data.pretrain.folder: " in refusal(image_folder("incoming", 1))
    inside = image_folder("collection/incoming", first_seed=60, ant=1)
    with pytest.raises(UserError, match="lie in each other"), taken_in(inside, LABELLED, tmp_path):
        pass
    shutil.rmtree(inside)
    (collection / "stray.png").write_bytes(b"")
    shutil.rmtree(tmp_path / "incoming")
    assert "holds an image (stray.png)" in refusal(image_folder("incoming", first_seed=50, ant=1))


def test_a_collection_takes_in_one_batch_at_a_time(collection: Path, image_folder: Callable[..., Path]) -> None:
    first, second = image_folder("first", first_seed=50, ant=1), image_folder("second", first_seed=60, ant=1)
    with taken_in(first, LABELLED, first.parent):
        assert "is just taking images in there. Run again when it has ended." in refusal(second)
        with pytest.raises(UserError, match="just taking images in"):
            undo_unfinished(LABELLED, first.parent)
    take(second)


def test_what_fails_afterwards_takes_the_images_back(
    collection: Path, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    incoming = image_folder("incoming", first_seed=50, ant=2, dog=1)
    before = contents(tmp_path)
    newcomer = (collection / "ant/000.png").read_bytes()
    with suppress(KeyError), taken_in(incoming, LABELLED, tmp_path, new_classes=True):
        (incoming / "ant/000.png").write_bytes(newcomer)  # arrives meanwhile
        raise KeyError
    back = before["incoming/ant/000.png"]
    assert contents(tmp_path) == before | {"incoming/ant/000.png": newcomer, "incoming/ant/000-1.png": back}
    assert not (collection / "dog").exists(), "an empty class folder would break the collection"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_collection_that_may_not_be_written(collection: Path, image_folder: Callable[..., Path]) -> None:
    incoming = image_folder("incoming", first_seed=50, ant=1)
    collection.chmod(0o500)
    assert "Permission denied" in refusal(incoming)
    collection.chmod(0o700)


def test_a_file_in_the_way_of_a_folder(collection: Path, image_folder: Callable[..., Path]) -> None:
    incoming = image_folder("incoming", first_seed=50, ant=2)
    (incoming / "ant/001.png").rename(incoming / "ant/aside.png")
    (incoming / "ant/001.png").mkdir()
    (incoming / "ant/aside.png").rename(incoming / "ant/001.png/deep.png")
    assert "so that files can't be moved" in refusal(incoming)


@pytest.fixture(params=["one file system", "two file systems"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where new images arrive."""
    if request.param == "one file system":
        yield tmp_path / "arrivals"
        return
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no other file system here")
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        yield Path(folder)


CHANGES = {f"os.{call}" for call in ("rename", "remove", "mkdir", "rmdir", "chmod", "utime")}  # audited by Python


def what_kills_leave(work: Callable[[], None], folders: Sequence[Path], saved: Path) -> list[Path]:
    """Do the work once, in a child; before each change to a file the folders are copied, as a kill would leave them.

    Returns a folder for each moment, with a numbered copy of each of the folders that are there.
    """
    child = os.fork()
    if child == 0:
        moments, copying = itertools.count(), False

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal copying
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not copying and (writes or event in CHANGES):
                copying = True
                moment = saved / str(next(moments))
                moment.mkdir(parents=True)
                for number, folder in enumerate(folders):
                    if folder.exists():
                        shutil.copytree(folder, moment / str(number))
                copying = False

        sys.addaudithook(hook)  # for as long as the process lives
        try:
            with suppress(KeyError):
                work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    return sorted(saved.iterdir(), key=lambda moment: int(moment.name))


@pytest.mark.parametrize("fails", [False, True], ids=["ends well", "is taken back"])
def test_killed_at_any_moment(
    place: Path, collection: Path, image_folder: Callable[..., Path], tmp_path: Path, fails: bool
) -> None:
    incoming, rejected = place / "incoming", place / "incoming-rejected"
    arrived = image_folder("arrived", first_seed=50, ant=1, bee=1)
    (arrived / "ant/broken.png").write_bytes(b"broken")
    (arrived / "cow").mkdir()
    shutil.copy(collection / "cow/001.png", arrived / "cow/again.png")
    before = visible(collection)
    everything = Counter([*contents(arrived).values(), *contents(collection).values()])
    shutil.move(arrived, incoming)
    config = replace(LABELLED, processes=1)

    def work() -> None:
        with taken_in(incoming, config, tmp_path):
            if fails:
                raise KeyError

    folders, ended = (incoming, rejected, collection), set()
    moments = what_kills_leave(work, folders, tmp_path / "moments")
    assert len(moments) > 20
    for moment in moments:
        for number, folder in enumerate(folders):
            shutil.rmtree(folder, ignore_errors=True)
            if (moment / str(number)).exists():
                shutil.copytree(moment / str(number), folder)
        images = Counter(
            content
            for folder in folders
            for path, content in contents(folder).items()
            if not hidden(Path(path)) and path != "reasons.csv"
        )
        assert set(images) == set(everything), f"moment {moment.name}: an image is lost, or half of one is visible"
        assert images >= everything

        undo_unfinished(LABELLED, tmp_path)
        if fails:
            assert visible(collection) == before
        state = pickle.dumps([sorted(contents(folder).items()) for folder in folders])
        if state in ended:  # many moments are the same after that
            continue
        ended.add(state)
        if visible(incoming):
            with taken_in(incoming, config, tmp_path):
                pass
        assert contents(rejected).keys() == {"reasons.csv", "ant/broken.png", "cow/again.png"}
        assert reasons(rejected).keys() == {"ant/broken.png", "cow/again.png"}
        assert visible(collection) == contents(collection).keys() == before | {"ant/000-1.png", "bee/000-1.png"}
