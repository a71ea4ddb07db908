import os
from pathlib import Path

import pytest

from components.errors import UserError
from components.monitoring.incoming import list_incoming, not_seen, remember


@pytest.fixture
def incoming(tmp_path):
    folder = tmp_path / "incoming"
    (folder / "camera" / "monday").mkdir(parents=True)
    for name in ("b.png", "a.png", "camera/monday/c.png", ".hidden", "camera/.part"):
        (folder / name).write_text(name)
    (folder / "quiet").mkdir()  # an empty folder is no mistake here
    return folder


def names(files) -> list[str]:
    return [file.name for file in files]


def test_files_at_any_depth_but_no_hidden_ones(incoming):
    files = list_incoming(incoming).images
    assert names(files) == ["a.png", "b.png", "camera/monday/c.png"]
    assert [Path(file.path) for file in files] == [incoming / file.name for file in files]
    assert [file.size for file in files] == [5, 5, 19]


def test_a_name_that_is_no_text_can_be_printed(incoming):
    (incoming / os.fsdecode(b"\xff.png")).touch()
    (file,) = (f for f in list_incoming(incoming).images if f.size == 0)
    assert file.name == "\\xff.png"
    file.name.encode()


def test_other_files_are_counted(incoming):
    for name in ("notes.txt", "camera/log.TXT", "README", "Thumbs.db"):
        (incoming / name).write_text("no image")
    (incoming / "gone.png").symlink_to("nowhere")
    found = list_incoming(incoming)
    assert names(found.images) == ["a.png", "b.png", "camera/monday/c.png", "gone.png"]
    assert found.others == {".txt": 2, "no suffix": 1}


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match=r"incoming: .*nowhere is not a folder"):
        list_incoming(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not a folder"):
        list_incoming(tmp_path / "file")


def test_what_was_seen_is_new_again_only_when_it_changes(incoming, tmp_path):
    seen = tmp_path / "out" / "seen.json"
    files = list_incoming(incoming).images
    assert not_seen(files, incoming, seen, "champion") == files
    remember(files, seen, "champion")
    assert not_seen(files, incoming, seen, "champion") == []
    assert not_seen(files, incoming, seen, "another model") == files

    (incoming / "d.png").touch()
    (incoming / "a.png").write_text("longer than before")
    os.utime(incoming / "b.png", ns=(0, 0))
    assert names(not_seen(list_incoming(incoming).images, incoming, seen, "champion")) == ["a.png", "b.png", "d.png"]


def test_what_is_gone_is_forgotten(incoming, tmp_path):
    seen = tmp_path / "seen.json"
    remember(list_incoming(incoming).images, seen, "champion")
    remember(list_incoming(incoming).images, seen, "another model")
    (incoming / "a.png").unlink()
    remember(list_incoming(incoming).images, seen, "champion")
    assert "a.png" not in seen.read_text().partition("another model")[0]
    assert not_seen(list_incoming(incoming).images, incoming, seen, "another model") == []


def test_a_folder_that_was_always_empty_is_a_mistake_and_an_emptied_one_is_not(incoming, tmp_path):
    seen = tmp_path / "out" / "seen.json"
    with pytest.raises(UserError, match=r"incoming: .*incoming holds no image\. Put images into it"):
        not_seen([], incoming, seen, "champion")
    remember(list_incoming(incoming).images, seen, "champion")
    assert not_seen([], incoming, seen, "champion") == []
