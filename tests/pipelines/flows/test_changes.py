import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.flows.changes import changes, recorded


def run(root: Path, params: dict[str, Any], code: dict[str, str], files: int) -> None:
    """Leave what a run leaves: two stages, the second reading the first one's output."""
    (root / "outputs/sources").mkdir(parents=True, exist_ok=True)
    listing = {"labelled": {"name": "images", "files": files, "fingerprint": str(files)}, "test": {"name": "digits"}}
    (root / "outputs/sources/listing.json").write_text(json.dumps(listing))
    deps = [{"path": path, "md5": md5} for path, md5 in code.items()]
    first = {"params": {"params.yaml": params}, "deps": deps, "outs": [{"path": "outputs/first", "md5": str(params)}]}
    results = [{"path": path, "md5": str(params)} for path in ("outputs/first/file", "outputs")]  # in it, and around it
    second = {"deps": [*results, *deps[:1]]}
    YAML().dump({"schema": "2.0", "stages": {"first": first, "second": second}}, root / "dvc.lock")


def test_what_is_new(tmp_path: Path) -> None:
    assert changes(recorded(tmp_path), None) == ["the first run in this workspace"]
    run(tmp_path, {"seed": 0, "training": {"steps": 20, "device": "cpu"}, "old": 1}, {"a.py": "1", "b.py": "1"}, 150)
    before = recorded(tmp_path)
    assert changes(before, recorded(tmp_path)) == []
    run(tmp_path, {"seed": 0, "training": {"steps": 30, "device": "cpu"}, "new": [2]}, {"a.py": "2", "b.py": "1"}, 1153)
    assert changes(before, recorded(tmp_path)) == [
        "images of `data.labelled`: 150 → 1,153 files",
        r"`new`: – → \[2\]",
        "`old`: 1 → –",
        "`training.steps`: 20 → 30",
        "code: `a.py`",
    ]
