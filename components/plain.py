"""Configuration dataclasses as plain values (what JSON holds) and back, with the standard library alone.

Validation of what people write is pydantic's, on the machine that has it; this reads what was validated there, and
checks the few values that are changed afterwards.
"""

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from components.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ByName:
    """In an annotation: the `name` in a section chooses one of these dataclasses."""

    kinds: Mapping[str, type[Any]]
    default: type[Any]  # what a section without a name is


def by_name(kind: Any) -> ByName | None:
    """What an annotation says about names."""
    return next((said for said in getattr(kind, "__metadata__", ()) if isinstance(said, ByName)), None)


def read_plain(kind: type[T], value: Any, where: str = "") -> T:
    """An object of the dataclass `kind` from mappings, lists and values. `where` begins the keys in messages.

    Raises:
        ConfigError: a key is unknown or missing, a value has another type, or the dataclass refuses the combination.
    """
    return _read(kind, value, where)


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if named := by_name(kind):
        return _read_named(named, value, where)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is Literal:
        if not any(value == known and type(value) is type(known) for known in arguments):
            raise _wrong(where, f"one of {', '.join(map(repr, arguments))}", value)
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(where, "a list", value)
        return tuple(_read(arguments[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(where, "a mapping", value)
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise _wrong(where, "a number that a float can hold", value) from None
    if type(value) is not kind:
        raise _wrong(where, kind.__name__, value)
    return value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, "a mapping", value)
    hints = get_type_hints(kind, include_extras=True)
    known = {field.name: field for field in fields(kind)}
    prefix = f"{where}." if where else ""
    for key in value:
        if key not in known:
            close = get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f", did you mean {close[0]!r}" if close else ""
            raise ConfigError(f"{prefix}{key}: unknown key{hint}. Known keys: {', '.join(known)}.")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{prefix}{name}: missing; this key is required.")
    given = {key: _read(hints[key], item, f"{prefix}{key}") for key, item in value.items()}
    try:
        return kind(**given)
    except ValueError as error:
        raise ConfigError(f"{where or 'configuration'}: {error}.") from error


def _read_named(named: ByName, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, "a mapping", value)
    name = value.get("name")
    if name is not None and name not in named.kinds:
        raise _wrong(f"{where}.name", f"one of {', '.join(map(repr, named.kinds))}", name)
    return _read(named.default if name is None else named.kinds[name], value, where)


def _read_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first kind that takes the value."""
    if value is None and types.NoneType in kinds:
        return None
    refused: ConfigError | None = None
    for kind in (kind for kind in kinds if kind is not types.NoneType):
        try:
            return _read(kind, value, where)
        except ConfigError as error:
            refused = error
    assert refused is not None
    raise refused


def _wrong(where: str, expected: str, found: Any) -> ConfigError:
    return ConfigError(f"{where or 'configuration'}: expected {expected}, found {found!r}.")
