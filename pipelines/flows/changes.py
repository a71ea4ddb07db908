"""What is new since the last run in a folder: parameters and code, as dvc.lock records them, and images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.data.sources.image_files import key_of
from components.files import read_json
from components.markdown import literal
from pipelines.config.flatten import flat
from pipelines.paths import stage_folder


@dataclass(frozen=True)
class Recorded:
    """What the results in a folder were made from."""

    params: Mapping[str, Any]  # by dotted key
    code: Mapping[str, str]  # path → hash
    sources: Mapping[str, Mapping[str, Any]]  # role → what `sources` found there


def recorded(folder: Path) -> Recorded | None:
    """As the last run left it; None where nothing has run."""
    lock, listing = folder / "dvc.lock", folder / stage_folder("sources") / "listing.json"
    if not lock.exists():
        return None
    stages = YAML(typ="safe").load(lock).get("stages", {}).values()
    outs = {Path(out["path"]) for stage in stages for out in stage.get("outs", [])}
    return Recorded(
        params={k: v for stage in stages for k, v in flat(stage.get("params", {}).get("params.yaml", {})).items()},
        code={
            dep["path"]: dep["md5"]
            for stage in stages
            for dep in stage.get("deps", [])
            if not any(_overlap(Path(dep["path"]), out) for out in outs)
        },
        sources=read_json(listing) if listing.exists() else {},
    )


def changes(before: Recorded | None, after: Recorded | None) -> list[str]:
    """What is new, a sentence each, in Markdown."""
    if before is None or after is None:
        return ["the first run in this workspace"]
    lines = []
    for role, now in after.sources.items():
        then = before.sources.get(role, {})
        if now != then and "files" in now:
            lines.append(f"images of `{key_of(role)}`: {then.get('files', 0):,} → {now['files']:,} files")
    for key in sorted({*before.params, *after.params}):
        old, new = before.params.get(key, "–"), after.params.get(key, "–")
        if old != new:
            lines.append(f"`{key}`: {literal(old)} → {literal(new)}")
    code = sorted(path for path, md5 in after.code.items() if before.code.get(path) not in (None, md5))
    return lines + ([f"code: {', '.join(f'`{path}`' for path in code)}"] if code else [])


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
