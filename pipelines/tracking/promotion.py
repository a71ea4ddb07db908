"""Who is champion: handing the alias over, promoting a version by hand, and rolling back.

The registered model's tag `champions` lists the versions that were champion, oldest first, so that a rollback can be
repeated. The alias is what counts: where an interruption left the list ahead of the alias, or behind it, `_line` sets
it right.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from pipelines.tracking.provenance import user
from pipelines.tracking.store import quoted

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


def tag_version(client: "MlflowClient", name: str, version: str, tags: Mapping[str, Any]) -> None:
    """Set tags of a version; MLflow has no call for several."""
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, str(value))


def promote(client: "MlflowClient", name: str, wanted: str, force: bool = False) -> str:
    """Make a version (its number, or an alias as `challenger`) champion; returns what was done, in words.

    Raises:
        UserError: there is no such version, it is the champion already, or it has not passed the gate (unless `force`).
    """
    model = _model(client, name)
    candidate = _version(client, model, wanted)
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
    after = f"before it was version {_shown(before)}" if before else "there was none before"
    forced = "" if passed else " It has not passed the gate."
    return f"Champion of {name} is now version {_shown(candidate)}; {after}.{forced}"


def roll_back(client: "MlflowClient", name: str) -> str:
    """Make the champion before the present one champion again; returns what was done, in words.

    The version that is left is tagged, so that no comparison promotes it again by itself.

    Raises:
        UserError: there is no champion, or none before it.
    """
    model = _model(client, name)
    present = champion(client, name)
    if present is None:
        raise UserError(f"{name} has no champion to roll back. `promote VERSION` makes one.")
    line = _line(model)[:-1]
    known = {str(version.version): version for version in _versions(client, name)}
    while line and line[-1] not in known:  # deleted since
        line.pop()
    if not line:
        raise UserError(f"version {present.version} of {name} has no champion before it to go back to.")
    # The mark comes first: interrupted here, a repeated rollback does the rest.
    client.set_model_version_tag(name, str(present.version), ROLLED_BACK, f"rolled back {_by_hand()}")
    client.set_registered_model_alias(name, CHAMPION, line[-1])
    client.set_registered_model_tag(name, CHAMPIONS, " ".join(line))
    return (
        f"Champion of {name} is version {_shown(known[line[-1]])} again; version {_shown(present)} is rolled back, "
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


def _model(client: "MlflowClient", name: str) -> "RegisteredModel":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"no model is registered as {name}. `make run` registers one; `make sync` sends it.") from None


def _versions(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    return sorted(client.search_model_versions(f"name = {quoted(name)}"), key=lambda v: int(v.version))


def _version(client: "MlflowClient", model: "RegisteredModel", wanted: str) -> "ModelVersion":
    number = str(model.aliases.get(wanted, wanted))
    versions = _versions(client, model.name)
    for version in versions:
        if str(version.version) == number:
            return version
    there = ", ".join(_shown(version) for version in versions[-10:]) or "none"
    aliases = ", ".join(model.aliases) or "none"
    raise UserError(f"{model.name} has no version {wanted}. Versions: {there}; aliases: {aliases}.")


def _shown(version: "ModelVersion") -> str:
    score = f"score {float(version.tags['score']):.4f}" if "score" in version.tags else None
    facts = [version.tags.get("variant"), score]
    known = ", ".join(filter(None, facts))
    return f"{version.version} ({known})" if known else str(version.version)


def _by_hand() -> str:
    return f"by hand by {user()} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
