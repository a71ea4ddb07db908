"""Who is champion: deciding about a proposal, handing the alias over, promoting a version by hand, and rolling back.

The registered model's tag `champions` lists the versions that were champion, oldest first, so that a rollback can be
repeated. The alias is what counts: where an interruption left the list ahead of the alias, or behind it, `_line` sets
it right.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.files import write_json
from components.locks import locked
from pipelines.tracking.provenance import user
from pipelines.tracking.registry import find_version, registered_model, shown, tag_version, version_of, versions_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION, CHAMPIONS, ROLLED_BACK = "champion", "champions", "rolled_back"
LOCK = "champion.lock"  # in the tracking folder: one process at a time moves the alias
REMEMBERED = 100  # champions; a tag holds 5000 characters


def champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    """The version that the alias `champion` points at."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, version) if version is not None else None


def hand_over(client: "MlflowClient", name: str, version: str, notes: Mapping[str, str]) -> None:
    """Make a version champion, and note it there and in the list. May be repeated until the alias is set."""
    line = _line(client.get_registered_model(name))
    if line[-1:] == [version]:  # listed, but the alias was not set, or was removed
        line.pop()
    previous = line[-1] if line else ""
    tag_version(client, name, version, {**notes, "previous_champion": previous})
    client.set_registered_model_tag(name, CHAMPIONS, " ".join([*line, version][-REMEMBERED:]))
    client.set_registered_model_alias(name, CHAMPION, version)


def comparable(candidate: Mapping[str, str], champion: Mapping[str, str]) -> bool:
    """Whether two versions' scores, by their tags, are the same measure on the same data."""
    return "score" in champion and all(
        champion.get(tag) == candidate[tag] for tag in ("score_name", "data_fingerprint")
    )


def decide(
    candidate: Mapping[str, str],
    champion: Mapping[str, str] | None,
    gate_passed: bool,
    comparison: Mapping[str, Any] | None = None,
) -> tuple[bool, str]:
    """Whether the candidate becomes champion, and why. Both are given by their version's tags.

    Where their scores are of different data, or of another kind, the scores of `comparison` count: of both on the same
    images. Where there can be none, the gate alone decides; where it was missed, the champion stays.
    """
    if not gate_passed:
        return False, "the gate failed"
    if champion is None:
        return True, "the gate passed and there was no champion"
    if comparable(candidate, champion):
        old, new, where = float(champion["score"]), float(candidate["score"]), ""
    elif comparison is None:
        return False, (
            "the champion was scored on different data, or by another score, and was not at hand to be scored on this: "
            "`make promote` decides by hand"
        )
    elif "impossible" in comparison:
        return True, (
            "the gate passed; the champion was scored on different data, or by another score, and cannot be scored on "
            f"this ({comparison['impossible']}), so the gate alone decided"
        )
    else:
        old, new = comparison["champion"], comparison["candidate"]
        where = f" on the {comparison['images']:,} test images that neither knows"
    told = f"its {candidate['score_name']} {new:.4f} is"
    if new >= old:
        return True, f"the gate passed and {told} not below the champion's {old:.4f}{where}"
    return False, f"{told} below the champion's {old:.4f}{where}"


def propose(client: "MlflowClient", run_id: str, run_key: str, root: Path, proposal: Mapping[str, Any]) -> None:
    """Point `challenger` at the proposed version, and `champion` too where `decide` says so.

    What happened is written to `<root>/promotions/<run_key>.json` and tagged on the run.
    """
    name = proposal["registered_name"]
    candidate = find_version(client, name, proposal["model_run_key"])
    result: dict[str, Any]
    if candidate is None:
        result = {"version": None, "champion": None, "previous_champion": None, "moved": False}
        result["reason"] = f"no version of {name} was registered here by {proposal['model_run_key']}"
    else:
        with locked(root / LOCK):
            result = _point_aliases(client, run_key, candidate, proposal)
    client.set_tag(run_id, "promotion", result["reason"])
    write_json(root / "promotions" / f"{run_key}.json", {"registered_name": name, **result})


def _point_aliases(
    client: "MlflowClient", run_key: str, candidate: "ModelVersion", proposal: Mapping[str, Any]
) -> dict[str, Any]:
    name, version = candidate.name, str(candidate.version)
    tags = {key: str(proposal[key]) for key in ("score", "score_name", "gate", "gate_passed", "data_fingerprint")}
    tag_version(client, name, version, tags)
    client.set_registered_model_alias(name, "challenger", version)
    before = champion(client, name)
    previous = str(before.version) if before else None
    if before is not None and previous == version:
        # Proposed again, or an interrupted promotion repeated: then the tags tell what it did.
        moved = before.tags.get("promoted_by") == run_key
        reason = before.tags["promotion"] if moved else "it is the champion already"
        previous = before.tags["previous_champion"] or None if moved else previous
    elif ROLLED_BACK in candidate.tags:
        moved, reason = False, f"it was {candidate.tags[ROLLED_BACK]}"
    else:
        comparison = proposal["comparison"]
        if comparison is not None and comparison["version"] != previous:  # another has become champion since
            comparison = None
        moved, reason = decide(tags, before.tags if before else None, proposal["gate_passed"], comparison)
        if moved:
            hand_over(client, name, version, {"promoted_by": run_key, "promotion": reason})
    return {
        "version": version,
        "champion": version if moved else previous,
        "previous_champion": previous,
        "moved": moved,
        "reason": reason,
    }


def promote(client: "MlflowClient", name: str, wanted: str, force: bool = False) -> str:
    """Make a version (its number, or an alias as `challenger`) champion; returns what was done, in words.

    Raises:
        UserError: there is no such version, it is the champion already, or it has not passed the gate (unless `force`).
    """
    candidate = version_of(client, name, wanted)
    version = str(candidate.version)
    before = champion(client, name)
    if before is not None and str(before.version) == version:
        raise UserError(f"version {version} of {name} is the champion already.")
    passed = candidate.tags.get("gate_passed") == "True"
    if not passed and not force:
        why = f"has not passed the gate: {candidate.tags['gate']}" if "gate" in candidate.tags else "was never compared"
        raise UserError(f"version {version} of {name} {why}. To promote it all the same, add --force (make: FORCE=1).")
    who = _by_hand()
    how = f"promoted {who}" + ("" if passed else ", without having passed the gate")
    if ROLLED_BACK in candidate.tags:
        client.delete_model_version_tag(name, version, ROLLED_BACK)
    hand_over(client, name, version, {"promoted_by": who, "promotion": how})
    after = f"before it was version {shown(before)}" if before else "there was none before"
    forced = "" if passed else " It has not passed the gate."
    return f"Champion of {name} is now version {shown(candidate)}; {after}.{forced}"


def roll_back(client: "MlflowClient", name: str) -> str:
    """Make the champion before the present one champion again; returns what was done, in words.

    The version that is left is tagged, so that no comparison promotes it again by itself.

    Raises:
        UserError: there is no champion, or none before it.
    """
    model = registered_model(client, name)
    present = champion(client, name)
    if present is None:
        raise UserError(f"{name} has no champion to roll back. `promote VERSION` makes one.")
    line = _line(model)[:-1]
    known = {str(version.version): version for version in versions_of(client, name)}
    while line and line[-1] not in known:  # deleted since
        line.pop()
    if not line:
        raise UserError(f"version {present.version} of {name} has no champion before it to go back to.")
    # The mark comes first: interrupted here, a repeated rollback does the rest.
    client.set_model_version_tag(name, str(present.version), ROLLED_BACK, f"rolled back {_by_hand()}")
    client.set_registered_model_alias(name, CHAMPION, line[-1])
    client.set_registered_model_tag(name, CHAMPIONS, " ".join(line))
    return (
        f"Champion of {name} is version {shown(known[line[-1]])} again; version {shown(present)} is rolled back, "
        f"and only `promote {present.version}` makes it champion again."
    )


def _line(model: "RegisteredModel") -> list[str]:
    """The champions so far, the present one last."""
    line = model.tags.get(CHAMPIONS, "").split()
    present = model.aliases.get(CHAMPION)
    if present is None:
        return line
    while line and line[-1] != str(present) and str(present) in line:  # a hand-over or rollback was interrupted
        line.pop()
    return line if str(present) in line else [*line, str(present)]  # the latter: moved in MLflow's UI


def _by_hand() -> str:
    return f"by hand by {user()} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
