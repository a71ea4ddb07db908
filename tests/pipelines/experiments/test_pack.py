"""Results in parts of a size, and back."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from pipelines.experiments.pack import MIB, pack, unpack

PART = 0.03  # MiB
SMALL = ("results.json", "curves.csv", "samples.npz", "probe.npz", "fused.npz", "roc.csv", "events.jsonl")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def packed(finished, tmp_path) -> Path:
    """A folder that holds parts of 30 kB with everything in them."""
    pack(finished, tmp_path / "packed", PART, 999)
    return tmp_path / "packed"


def test_everything_comes_out_as_it_went_in_but_images_and_features(finished, packed):
    parts = sorted(packed.glob("study.tar.*"))
    assert len(parts) > 10
    assert {part.stat().st_size for part in parts[:-1]} == {int(PART * MIB)}
    assert json.loads((packed / "left_out.json").read_text()) == {}
    unpack(packed)
    before, came = files(finished), files(packed)
    wanted = {n for n in before if n.startswith("runs/") and ".lock" not in n and not n.endswith(".npy")}
    assert {name: came.get(name) for name in wanted} == {name: before[name] for name in wanted}
    images = {f"runs/{model}/seed-3/data/prepared/dataset.json" for model in ("hybrid", "wide")}
    assert {name for name in came if name.startswith("runs/")} == wanted | images
    assert {"study.json", "table.md", "numbers.csv", "baselines/seed-3/outputs/baselines/results.json"} <= set(came)


def test_what_has_no_room_is_left_out_by_name_the_largest_first(finished, packed, tmp_path):
    everything = sum(part.stat().st_size for part in packed.glob("study.tar.*"))
    room = (everything - 30_000) / 2 / MIB
    pack(finished, tmp_path / "less", room, 2)
    assert sum(path.stat().st_size for path in (tmp_path / "less").glob("study.tar.*")) <= 2 * room * MIB
    left = json.loads((tmp_path / "less/left_out.json").read_text())
    assert left
    assert all(name.endswith((".parquet", ".safetensors")) for name in left)
    unpack(tmp_path / "less")
    came = files(tmp_path / "less")
    assert not set(left) & set(came)
    assert all(any(name.endswith(f"/{small}") for name in came) for small in SMALL)
    large = [len(content) for name, content in came.items() if name.endswith((".parquet", ".safetensors"))]
    assert max(large, default=0) <= min((finished / name).stat().st_size for name in left)


def test_the_weights_that_are_asked_for_come_first(finished, packed, tmp_path):
    room = (sum(part.stat().st_size for part in packed.glob("study.tar.*")) - 30_000) / MIB

    def lacking(*models: str) -> set[str]:
        """Models whose weights or scores found no room."""
        pack(finished, tmp_path / "less", room, 1, models)
        return {name.split("/")[1] for name in json.loads((tmp_path / "less/left_out.json").read_text())}

    assert lacking("wide") == {"hybrid"}
    assert lacking("hybrid/seed-3") == {"wide"}


def test_no_room_for_the_least_is_told_and_nothing_is_written(finished, tmp_path):
    with pytest.raises(UserError, match=r"the results take .* MiB, more than 1 parts of 0.01 MiB"):
        pack(finished, tmp_path / "packed", 0.01, 1)
    with pytest.raises(UserError, match="no finished stage to pack"):
        pack(tmp_path, tmp_path / "packed", 16, 8)
    assert not (tmp_path / "packed").exists()


@settings(max_examples=8, deadline=None)
@given(part_kib=st.integers(8, 1000))
def test_the_size_of_parts_changes_nothing(finished, tmp_path_factory, part_kib):
    folder = tmp_path_factory.mktemp("parts")
    parts = pack(finished, folder / "packed", part_kib / 1024, 999)
    assert all(part.stat().st_size <= part_kib * 1024 for part in parts)
    unpack(folder / "packed")
    assert files(folder / "packed")["numbers.csv"] == (finished / "numbers.csv").read_bytes()
    shutil.rmtree(folder)


@pytest.mark.parametrize("missing", [0, 3, -1])
def test_a_missing_part_is_told(packed, missing):
    sorted(packed.glob("study.tar.*"))[missing].unlink()
    with pytest.raises(UserError, match=r"part.* (is|are) missing"):
        unpack(packed)


def test_unpacking_goes_on_and_overwrites_nothing(packed):
    unpack(packed)
    (packed / "table.md").write_text("mine")
    (packed / "numbers.csv").unlink()
    unpack(packed)
    assert (packed / "table.md").read_text() == "mine"
    assert (packed / "numbers.csv").exists()
